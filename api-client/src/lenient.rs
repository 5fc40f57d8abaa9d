//! Decodes objects leniently. A list, watch, read or write succeeds even if an object in the answer can't be decoded.
//!
//! Kubernetes accepts values that kube's types refuse, such as a time with the offset `+99:99` or the year 9999 in
//! `metadata.managedFields`. With kube's types, one such value in one object makes the whole list undecodable. kube's
//! `DeserializeGuard` does not help, because it decodes the full `ObjectMeta` even of an undecodable object.

mod metadata;
mod unreadable;

use std::borrow::Cow;
use std::fmt;

use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use unreadable::{UnreadableNotice, UnreadableObjects};

/// An object of kind `K`, or the part of it that can be decoded. Use `Lenient<K>` as the type parameter of `Api`. An
/// undecodable object then does not make list, get, watch, patch or kube's watcher fail.
///
/// `metadata` has name, namespace, UID, resourceVersion, generation, labels, annotations, finalizers and owner references.
/// `creationTimestamp` is absent if it can't be decoded. `deletionTimestamp` is present if the object has one. Do not use
/// its value, because an undecodable time becomes a time in the far future. All other metadata is absent.
///
/// **Never write a `Lenient` object to the API server: that would remove the fields that were not decoded.** Send a JSON
/// patch that tests the resourceVersion.
///
/// ```
/// # use bobbin_api_client::Lenient;
/// # use k8s_openapi::api::core::v1::ConfigMap;
/// let text = r#"{"metadata": {"name": "a", "managedFields": [{"time": "9999-12-31T23:59:59Z"}]}, "data": {"key": "value"}}"#;
/// assert!(serde_json::from_str::<ConfigMap>(text).is_err());
/// let object: Lenient<ConfigMap> = serde_json::from_str(text)?;
/// assert_eq!(object.readable().and_then(|map| map.data.as_ref()).map(|data| data.len()), Some(1));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Lenient<K> {
    /// The object could be decoded.
    Readable(K),
    /// The object exists but can't be decoded. Callers must treat it as an existing object whose addresses are in use.
    Unreadable(Box<Unreadable>),
}

/// The part of an unreadable object that could be decoded, and why the object is unreadable.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{why}")]
pub struct Unreadable {
    /// The part of the metadata that could be decoded. The name is always present.
    pub metadata: ObjectMeta,
    /// Which field can't be decoded, and why.
    pub why: String,
}

impl Unreadable {
    /// The object's name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl<K> Lenient<K> {
    /// The object, if it could be decoded.
    pub fn readable(&self) -> Option<&K> {
        match self {
            Self::Readable(object) => Some(object),
            Self::Unreadable(_) => None,
        }
    }

    /// Returns the object, if it could be decoded.
    ///
    /// # Errors
    /// If the object is unreadable, fails with the part of the object that could be decoded.
    pub fn into_result(self) -> Result<K, Box<Unreadable>> {
        match self {
            Self::Readable(object) => Ok(object),
            Self::Unreadable(object) => Err(object),
        }
    }
}

impl<K: Resource> Lenient<K> {
    /// The object's name.
    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Readable(object) => object.meta(),
            Self::Unreadable(object) => &object.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Readable(object) => object.meta_mut(),
            Self::Unreadable(object) => &mut object.metadata,
        }
    }
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Lenient<K> {
    /// # Errors
    /// Fails only if the input is not a JSON object with a `metadata.name`. The name is required, because callers store
    /// objects by name.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { metadata, rest } = deserializer.deserialize_map(PartsVisitor)?;
        let metadata = metadata.ok_or_else(|| D::Error::missing_field("metadata"))?;
        let metadata::Read { metadata, wrong } = metadata::read(&metadata).map_err(D::Error::custom)?;
        Ok(match wrong.map_or_else(|| decode::<K>(&rest), Err) {
            Ok(mut object) => {
                *object.meta_mut() = metadata;
                Self::Readable(object)
            }
            Err(why) => Self::Unreadable(Box::new(Unreadable { metadata, why })),
        })
    }
}

/// Decodes an object from its fields other than the metadata.
fn decode<K: DeserializeOwned>(rest: &[(String, Box<RawValue>)]) -> Result<K, String> {
    let empty = RawValue::from_string("{}".to_owned()).map_err(|error| error.to_string())?;
    let fields = rest.iter().map(|(field, value)| (field.as_str(), &**value));
    let fields = fields.chain(std::iter::once(("metadata", &*empty)));
    K::deserialize(MapDeserializer::<_, serde_json::Error>::new(fields)).map_err(|error| error.to_string())
}

/// The top-level fields of an object, not yet decoded.
struct Parts {
    metadata: Option<Box<RawValue>>,
    rest: Vec<(String, Box<RawValue>)>,
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts, A::Error> {
        let mut parts = Parts { metadata: None, rest: Vec::new() };
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "metadata" => parts.metadata = Some(map.next_value()?),
                // `apiVersion` and `kind` are skipped, because the type parameter determines the kind.
                "apiVersion" | "kind" => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => parts.rest.push((field, map.next_value()?)),
            }
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests;
