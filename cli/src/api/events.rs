//! What the commands need to know about Kubernetes Events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

/// The names under which the programs of Bobbin publish events.
pub(crate) use bobbin_messages::reporter::CONTROLLERS as REPORTERS;

/// Whether a program of Bobbin published the event.
pub(crate) fn is_of_bobbin(event: &Event) -> bool {
    event.reporting_component.as_deref().is_some_and(|reporter| REPORTERS.contains(&reporter))
}

/// When the event happened last.
pub(crate) fn last_seen(event: &Event) -> Option<Timestamp> {
    let of_series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    of_series.or(last).or_else(|| event.event_time.as_ref().map(|time| time.0))
}
