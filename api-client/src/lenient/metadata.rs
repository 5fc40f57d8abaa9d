//! Decodes an object's metadata field by field. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The decoded metadata of an object, and the error of the first field that can't be decoded.
pub(super) struct Read {
    pub(super) metadata: ObjectMeta,
    pub(super) wrong: Option<String>,
}

/// The metadata fields to decode. All other fields, such as `managedFields`, are skipped at any depth of nesting.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    name: String,
    namespace: Option<Box<RawValue>>,
    uid: Option<Box<RawValue>>,
    resource_version: Option<Box<RawValue>>,
    generation: Option<Box<RawValue>>,
    labels: Option<Box<RawValue>>,
    annotations: Option<Box<RawValue>>,
    finalizers: Option<Box<RawValue>>,
    owner_references: Option<Box<RawValue>>,
    creation_timestamp: Option<Box<RawValue>>,
    deletion_timestamp: Option<Box<RawValue>>,
}

/// Decodes the metadata of an object.
///
/// # Errors
/// Fails if the metadata is not an object or has no name.
pub(super) fn read(raw: &RawValue) -> serde_json::Result<Read> {
    let fields: Fields = serde_json::from_str(raw.get())?;
    let mut wrong = None;
    let metadata = ObjectMeta {
        name: Some(fields.name),
        namespace: field("namespace", fields.namespace, &mut wrong),
        uid: field("uid", fields.uid, &mut wrong),
        resource_version: field("resourceVersion", fields.resource_version, &mut wrong),
        generation: field("generation", fields.generation, &mut wrong),
        labels: field("labels", fields.labels, &mut wrong),
        annotations: field("annotations", fields.annotations, &mut wrong),
        finalizers: field("finalizers", fields.finalizers, &mut wrong),
        owner_references: field("ownerReferences", fields.owner_references, &mut wrong),
        creation_timestamp: fields.creation_timestamp.and_then(|raw| time(&raw)),
        // An object with a `deletionTimestamp` is being deleted, even if the time can't be decoded.
        deletion_timestamp: fields.deletion_timestamp.map(|raw| time(&raw).unwrap_or(Time(Timestamp::MAX))),
        ..ObjectMeta::default()
    };
    Ok(Read { metadata, wrong })
}

fn field<T: DeserializeOwned>(name: &str, raw: Option<Box<RawValue>>, wrong: &mut Option<String>) -> Option<T> {
    match serde_json::from_str(raw?.get()) {
        Ok(value) => value,
        Err(error) => {
            wrong.get_or_insert_with(|| format!("metadata.{name}: {error}"));
            None
        }
    }
}

fn time(raw: &RawValue) -> Option<Time> {
    serde_json::from_str(raw.get()).ok()
}
