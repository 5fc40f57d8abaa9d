//! Decodes times that Kubernetes accepts and the library jiff refuses, such as the offset `+99:99` or the end of the year
//! 9999.
//!
//! One unreadable time must not make the whole object unreadable, so each function returns a substitute for such a time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A JSON string, or any other JSON value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Other(IgnoredAny),
}

impl Text {
    fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let Self::Text(text) = self else { return None };
        serde_json::from_value(Value::String(text.clone())).ok()
    }
}

/// Decodes a time. An unreadable time becomes a time in the far future.
pub(crate) fn unreadable_as_future<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MicroTime, D::Error> {
    Ok(Text::deserialize(deserializer)?.read().unwrap_or(MicroTime(Timestamp::MAX)))
}

/// Decodes an optional time. An unreadable time becomes a time in the far future.
pub(crate) fn unreadable_as_future_optional<'de, D>(deserializer: D) -> Result<Option<MicroTime>, D::Error>
where
    D: Deserializer<'de>,
{
    let text: Option<Text> = Option::deserialize(deserializer)?;
    Ok(text.map(|text| text.read().unwrap_or(MicroTime(Timestamp::MAX))))
}

/// Decodes a time. An unreadable time becomes the beginning of 1970.
pub(crate) fn unreadable_as_past<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MicroTime, D::Error> {
    Ok(Text::deserialize(deserializer)?.read().unwrap_or(MicroTime(Timestamp::UNIX_EPOCH)))
}

/// Decodes the conditions of an object. An unreadable time in a condition becomes the beginning of 1970.
pub(crate) fn conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    let conditions: Option<Vec<ReadCondition>> = Option::deserialize(deserializer)?;
    let condition = |read: ReadCondition| Condition {
        type_: read.type_,
        status: read.status,
        reason: read.reason,
        message: read.message,
        observed_generation: read.observed_generation,
        last_transition_time: read.last_transition_time.read().unwrap_or(Time(Timestamp::UNIX_EPOCH)),
    };
    Ok(conditions.unwrap_or_default().into_iter().map(condition).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    observed_generation: Option<i64>,
    last_transition_time: Text,
}

#[cfg(test)]
mod tests;
