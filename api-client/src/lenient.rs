//! Objects decoded so that no byte of one object stops a list, a watch, a read or the answer to a write.
//!
//! Kubernetes accepts values that Rust's types refuse: a time with the offset `+99:99`, the year 9999 in `metadata.managedFields`.
//! One such value in one object fails the decoding of the whole list, for as long as the object is there. kube's
//! `DeserializeGuard` does not help, because its fall-back decodes a full `ObjectMeta`.

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

/// An object of kind `K`, or what could be read of it. Use it as the type parameter of `Api`:
/// list, get, watch, patch and kube's watcher then fail only if the API server's answer is no JSON.
///
/// `metadata` has name, namespace, UID, resourceVersion, generation, labels, annotations, finalizers and owner references, and
/// these times: `creationTimestamp` is absent if it can't be read; `deletionTimestamp` is there if the object has one, and in
/// the far future if it can't be read: use its presence only. Everything else of the metadata is never decoded and is absent.
///
/// **Never write an object back that was read in this way: that removes the fields which were not read.** Send a JSON patch
/// that tests the resourceVersion.
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
    /// The object.
    Readable(K),
    /// An object that is there and can't be read: it counts as in use.
    Unreadable(Box<Unreadable>),
}

/// What is known of an object that can't be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{why}")]
pub struct Unreadable {
    /// As much of the metadata as could be read; always with the name.
    pub metadata: ObjectMeta,
    /// The field and what is wrong with it.
    pub why: String,
}

impl Unreadable {
    /// The object's name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl<K> Lenient<K> {
    /// The object, if it could be read.
    pub fn readable(&self) -> Option<&K> {
        match self {
            Self::Readable(object) => Some(object),
            Self::Unreadable(_) => None,
        }
    }

    /// The object, or what is known of it.
    ///
    /// # Errors
    /// The object can't be read.
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
    /// Only what is no JSON object with a `metadata.name`: such a thing can't be kept by name.
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

/// Decodes an object without its metadata.
fn decode<K: DeserializeOwned>(rest: &[(String, Box<RawValue>)]) -> Result<K, String> {
    let empty = RawValue::from_string("{}".to_owned()).map_err(|error| error.to_string())?;
    let fields = rest.iter().map(|(field, value)| (field.as_str(), &**value));
    let fields = fields.chain(std::iter::once(("metadata", &*empty)));
    K::deserialize(MapDeserializer::<_, serde_json::Error>::new(fields)).map_err(|error| error.to_string())
}

/// An object's top-level fields, undecoded.
struct Parts {
    metadata: Option<Box<RawValue>>,
    rest: Vec<(String, Box<RawValue>)>,
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of Kubernetes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts, A::Error> {
        let mut parts = Parts { metadata: None, rest: Vec::new() };
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "metadata" => parts.metadata = Some(map.next_value()?),
                // The caller has asked for the kind.
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
