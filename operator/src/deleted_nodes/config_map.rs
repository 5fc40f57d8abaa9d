//! Reads and writes the ConfigMap of deleted nodes. The operator needs this ConfigMap to know the deleted nodes after a
//! restart.

use std::collections::BTreeMap;

use bobbin_api_client::{Lenient, Outcome, ReadError, patch, read, write};
pub(super) use bobbin_crds::deleted_nodes::{CONFIG_MAP as NAME, CONFIRMATION};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use k8s_openapi::jiff::{Timestamp, ToSpan};
use kube::Client;
use kube::api::TypeMeta;
use serde_json::json;

use super::deletions::{Deletion, Deletions, time_of_new_deletion};
use crate::config_map::{ConfigMaps, config_maps, create_empty};
use crate::context::WRITE_TIMEOUT;
use crate::live_reads::READ_TIMEOUT;

/// How far in the future the time of a confirmation may be. The limit is above zero, because clocks differ. The limit
/// is small, because a confirmation counts for all deletions up to its time, even for deletions that have not happened
/// yet.
const MAX_CLOCK_DIFFERENCE_MINUTES: i64 = 1;

/// The ConfigMap could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigMapError {
    #[error("reading ConfigMap {NAME} failed: {0}")]
    Read(#[from] ReadError),
    #[error("ConfigMap {NAME} can't be decoded; correct or delete it")]
    Undecodable,
    #[error("the API server refused to write ConfigMap {NAME}: {0}")]
    Refused(bobbin_api_client::Refusal),
    #[error("the operator does not know whether the API server wrote ConfigMap {NAME}: {0}")]
    Unknown(bobbin_api_client::UnknownWhy),
    #[error("another operator created ConfigMap {NAME} at the same time")]
    Created,
}

/// The content and the version of the ConfigMap.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// The resourceVersion. `None` if the ConfigMap does not exist.
    version: Option<String>,
    pub(super) deletions: Deletions,
}

/// The ConfigMap in the operator's namespace.
pub(super) struct DeletedNodesConfigMap {
    api: ConfigMaps,
    namespace: String,
}

impl DeletedNodesConfigMap {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self { api: config_maps(client, namespace), namespace: namespace.to_owned() }
    }

    /// The reference for events about the ConfigMap.
    pub(super) fn reference(&self) -> ObjectReference {
        let TypeMeta { api_version, kind } = TypeMeta::resource::<ConfigMap>();
        ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind),
            name: Some(NAME.to_owned()),
            namespace: Some(self.namespace.clone()),
            ..ObjectReference::default()
        }
    }

    /// Reads the ConfigMap. A missing ConfigMap counts as empty.
    pub(super) async fn read(&self, now: Timestamp) -> Result<Stored, ConfigMapError> {
        let config_map = match read(READ_TIMEOUT, self.api.get(NAME)).await {
            Err(ReadError::NotFound) => return Ok(Stored::default()),
            Err(error) => return Err(error.into()),
            Ok(Lenient::Unreadable(_)) => return Err(ConfigMapError::Undecodable),
            Ok(Lenient::Readable(config_map)) => config_map,
        };
        let annotations = config_map.metadata.annotations.unwrap_or_default();
        let confirmed_until = annotations.get(CONFIRMATION).and_then(|text| confirmation(text, now));
        let seen_at = time_of_new_deletion(confirmed_until, now);
        let entry = |(node, text): (String, String)| {
            let deletion = serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::warn!(node, %error, "the entry of a deleted node in ConfigMap {NAME} can't be decoded, so the operator does not release the node's blocks");
                Deletion::unreadable(seen_at)
            });
            (node, deletion)
        };
        let deletions =
            Deletions { nodes: config_map.data.unwrap_or_default().into_iter().map(entry).collect(), confirmed_until };
        Ok(Stored { version: config_map.metadata.resource_version, deletions })
    }

    /// Replaces the entries. Fails if the ConfigMap has changed since the operator read it.
    pub(super) async fn write(&self, before: &Stored, deletions: &Deletions) -> Result<(), ConfigMapError> {
        let text = |deletion| serde_json::to_string(deletion).unwrap_or_default();
        let data: BTreeMap<String, String> =
            deletions.nodes.iter().map(|(node, deletion)| (node.clone(), text(deletion))).collect();
        let version = match &before.version {
            Some(version) => version.clone(),
            None => self.create().await?,
        };
        let operations = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/data", "value": data},
        ]);
        done(write(WRITE_TIMEOUT, patch(&self.api, NAME, operations)).await).map(drop)
    }

    /// Creates the ConfigMap without entries and returns its version.
    async fn create(&self) -> Result<String, ConfigMapError> {
        let Lenient::Readable(created) = done(create_empty(&self.api, NAME).await)? else {
            return Err(ConfigMapError::Undecodable);
        };
        if created.data.is_some_and(|data| !data.is_empty()) {
            return Err(ConfigMapError::Created);
        }
        created.metadata.resource_version.ok_or(ConfigMapError::Undecodable)
    }
}

fn done<T>(outcome: Outcome<T>) -> Result<T, ConfigMapError> {
    match outcome {
        Outcome::Done(answer) => Ok(answer),
        Outcome::Refused(why) => Err(ConfigMapError::Refused(why)),
        Outcome::Unknown(why) => Err(ConfigMapError::Unknown(why)),
    }
}

/// The time in a confirmation; `None` if the text is not a time, or if the time is too far in the future.
fn confirmation(text: &str, now: Timestamp) -> Option<Timestamp> {
    let time: Option<Timestamp> = text.trim().parse().ok();
    let time = time.filter(|time| *time <= now.saturating_add(MAX_CLOCK_DIFFERENCE_MINUTES.minutes()).unwrap_or(now));
    if time.is_none() {
        tracing::warn!(
            value = text,
            "the annotation {CONFIRMATION} of ConfigMap {NAME} is not a time in the past, so it confirms nothing. The ConfigMap's event ReclaimHeld names the value to set"
        );
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_is_a_time_in_the_past() {
        let now: Timestamp = "2026-11-22T02:00:00Z".parse().expect("it is a time");
        assert_eq!(
            confirmation(" 2026-11-22T01:00:00Z", now).map(|time| time.to_string()),
            Some("2026-11-22T01:00:00Z".into())
        );
        for refused in ["", "yes", "2099-01-01T00:00:00Z"] {
            assert_eq!(confirmation(refused, now), None, "{refused}");
        }
    }
}
