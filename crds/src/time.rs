//! Times as they are read. Kubernetes accepts texts that are no time here (the offset `+99:99`, the end of the year 9999): such
//! a text must not make the object that has it unreadable. Each function says what it counts as. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The time within `[now − back, now]`: what a reader makes of a time that somebody else wrote.
///
/// One that could not be read is in the far future, so it counts as now.
pub fn clamped(time: &MicroTime, now: Timestamp, back: Duration) -> Timestamp {
    let earliest = now.checked_sub(back).unwrap_or(Timestamp::MIN);
    time.0.clamp(earliest.min(now), now)
}

/// A value that is a text, or anything else.
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

/// A time that counts as "in the far future" if it can't be read.
pub(crate) fn else_future<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MicroTime, D::Error> {
    Ok(Text::deserialize(deserializer)?.read().unwrap_or(MicroTime(Timestamp::MAX)))
}

/// The same for a time that may be absent.
pub(crate) fn else_future_optional<'de, D>(deserializer: D) -> Result<Option<MicroTime>, D::Error>
where
    D: Deserializer<'de>,
{
    let text: Option<Text> = Option::deserialize(deserializer)?;
    Ok(text.map(|text| text.read().unwrap_or(MicroTime(Timestamp::MAX))))
}

/// A time that counts as "long ago" if it can't be read.
pub(crate) fn else_past<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MicroTime, D::Error> {
    Ok(Text::deserialize(deserializer)?.read().unwrap_or(MicroTime(Timestamp::UNIX_EPOCH)))
}

/// Conditions; a time of one that can't be read counts as "long ago".
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
