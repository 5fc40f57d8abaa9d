//! The events that say why a pod has no address or no network.

use anyhow::Result;
use bobbin_api_client::Lenient;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{Api, Client};
use serde::Serialize;

use crate::api::events::{is_of_bobbin, last_seen};
use crate::api::objects;

/// How many events the explanation shows.
const MAX_EVENTS: usize = 3;
/// The reason of kubelet's event that contains the error of a CNI plugin.
const SANDBOX_FAILED: &str = "FailedCreatePodSandBox";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodNotice {
    pub(super) reason: String,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_seen: Option<Timestamp>,
}

/// The newest events that Bobbin wrote about the pod. If there is none, the newest event in which kubelet reports an error of a CNI plugin.
pub(super) async fn events(client: &Client, namespace: &str, pod: &Pod) -> Result<Vec<PodNotice>> {
    let events: Api<Lenient<Event>> = Api::namespaced(client.clone(), namespace);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let listed = objects::list(&events, &format!("involvedObject.kind=Pod,involvedObject.uid={uid}")).await?;
    Ok(choose_events(listed))
}

fn choose_events(listed: Vec<Event>) -> Vec<PodNotice> {
    let (mut ours, mut others): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_of_bobbin);
    others.retain(|event| event.reason.as_deref() == Some(SANDBOX_FAILED));
    ours.sort_by_key(last_seen);
    others.sort_by_key(last_seen);
    let chosen = if ours.is_empty() { others.split_off(others.len().saturating_sub(1)) } else { ours };
    let skipped = chosen.len().saturating_sub(MAX_EVENTS);
    chosen
        .into_iter()
        .skip(skipped)
        .map(|event| PodNotice {
            last_seen: last_seen(&event),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_bobbin_come_before_those_of_kubelet_and_a_series_counts_with_its_last_time() {
        let event = |component: &str, reason: &str, times: serde_json::Value| -> Event {
            let mut all = json!({"metadata": {"name": "e"}, "involvedObject": {}, "reason": reason, "reportingComponent": component});
            all.as_object_mut().expect("an object").extend(times.as_object().cloned().unwrap_or_default());
            serde_json::from_value(all).expect("an event")
        };
        let of_kubelet = |time: &str| event("kubelet", SANDBOX_FAILED, json!({"lastTimestamp": time}));
        let kubelets = vec![of_kubelet("2026-01-01T00:00:02Z"), of_kubelet("2026-01-01T00:00:01Z")];
        let chosen = choose_events(kubelets.clone());
        assert_eq!(chosen.iter().map(|one| one.last_seen).collect::<Vec<_>>(), ["2026-01-01T00:00:02Z".parse().ok()]);
        let series = json!({"eventTime": "2026-01-01T00:00:00.000000Z", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}});
        let ours = vec![
            event("bobbin-agent", "New", series),
            event("bobbin-agent", "Old", json!({"lastTimestamp": "2026-01-01T00:00:05Z"})),
        ];
        let chosen = choose_events(kubelets.into_iter().chain(ours).collect());
        assert_eq!(chosen.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>(), ["Old", "New"]);
    }
}
