//! Reads and writes the ConfigMap of denied nodes. The key of an entry is the name of a node. The value of an entry is the
//! time and the reason of the denial.

use std::collections::HashSet;

use bobbin_api_client::{Lenient, Outcome, ReadError, Refusal, read as read_object, write};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::config_map::{ConfigMaps, config_maps, create_empty};
use crate::context::{Context, WRITE_TIMEOUT};
use crate::live_reads::READ_TIMEOUT;

pub(super) use bobbin_crds::denied_nodes::CONFIG_MAP as NAME;

fn api(context: &Context) -> ConfigMaps {
    config_maps(&context.clients.requests, &context.namespace)
}

/// The nodes in the ConfigMap. `None` if the operator could not read the ConfigMap.
pub(super) async fn read(context: &Context) -> Option<HashSet<String>> {
    match read_object(READ_TIMEOUT, api(context).get(NAME)).await {
        Ok(Lenient::Readable(found)) => Some(found.data.unwrap_or_default().into_keys().collect()),
        Ok(Lenient::Unreadable(_)) => {
            tracing::warn!(
                "ConfigMap {NAME} can't be decoded. Denied nodes stay denied, but the operator denies no other nodes until somebody corrects the ConfigMap"
            );
            None
        }
        Err(ReadError::NotFound) => Some(HashSet::new()),
        Err(error) => {
            tracing::debug!(%error, "reading ConfigMap {NAME} failed; the operator tries again");
            None
        }
    }
}

/// Adds the entry of a node and creates the ConfigMap if it does not exist. Returns whether the entry is written.
pub(super) async fn add(context: &Context, node: &str, value: &str) -> bool {
    let entry = Patch::Merge(json!({"data": {node: value}}));
    let params = PatchParams::default();
    let mut outcome = write(WRITE_TIMEOUT, api(context).patch(NAME, &params, &entry)).await;
    if matches!(outcome, Outcome::Refused(Refusal::NotFound)) {
        outcome = create_empty(&api(context), NAME).await;
        if matches!(outcome, Outcome::Done(_)) {
            outcome = write(WRITE_TIMEOUT, api(context).patch(NAME, &params, &entry)).await;
        }
    }
    match outcome {
        Outcome::Done(_) => true,
        Outcome::Refused(why) => {
            tracing::error!(node, %why, "the API server refuses to add a node to ConfigMap {NAME}; the operator tries again");
            false
        }
        // The next pass reads the ConfigMap before it writes again.
        Outcome::Unknown(why) => {
            tracing::warn!(node, %why, "the operator does not know whether the API server added a node to ConfigMap {NAME}; the operator tries again");
            false
        }
    }
}
