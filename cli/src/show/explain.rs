//! `explain`: the pool and the address of a pod, or why the pod has none.

use anyhow::{Context, Result};
use bobbin_api_client::Lenient;
use bobbin_crds::IPAssignment;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::Answer;
use crate::api::events::{is_of_bobbin, last_seen};
use crate::api::objects;
use crate::api::selection::{is_of, rule, select};
use crate::print::age::age;
use crate::print::output::{Output, Report};
use crate::show::since::since;

/// How many events the explanation shows.
const MAX_EVENTS: usize = 3;
/// The reason of kubelet's event that contains the error of a CNI plugin.
const SANDBOX_FAILED: &str = "FailedCreatePodSandBox";

/// Explains the address of a pod. The answer is no if the pod should have an address and has none.
pub(crate) async fn run(client: &Client, namespace: &str, name: &str, output: Output) -> Result<Answer> {
    let pods: Api<Lenient<Pod>> = Api::namespaced(client.clone(), namespace);
    let pod = objects::get(&pods, name).await?.with_context(|| {
        format!("Pod {namespace}/{name} does not exist; list the pods with: kubectl -n {namespace} get pods")
    })?;
    let explanation = explain(client, namespace, &pod).await?;
    output.print(&explanation)?;
    let lacks_address = explanation.needs_address && explanation.addresses.is_empty();
    Ok(if lacks_address { Answer::No } else { Answer::Yes })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Whether the pod should have an address from Bobbin now.
    needs_address: bool,
    /// Why the pod needs no address.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_need_because: Option<&'static str>,
    /// The pool that a new pod like this one would use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<Selected>,
    /// The addresses that the API server's IPAssignments record for the pod.
    addresses: Vec<Attachment>,
    /// Events of the pod, the newest last.
    events: Vec<PodNotice>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Selected {
    name: String,
    /// Why the pod selects this pool.
    rule: &'static str,
    /// Why the pod gets no address from the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<String>,
    interface: String,
    pool: String,
    block: String,
    node: String,
    since: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodNotice {
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
}

async fn explain(client: &Client, namespace: &str, pod: &Pod) -> Result<Explanation> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let no_need = no_need(pod);
    let addresses = addresses(client, namespace, pod).await?;
    let pool = match no_need {
        Some(_) => None,
        None => Some(selected(client, namespace, pod).await?),
    };
    let events = if no_need.is_none() { events(client, namespace, pod).await? } else { Vec::new() };
    let name = format!("{namespace}/{}", pod.name_any());
    Ok(Explanation { name, node, needs_address: no_need.is_none(), no_need_because: no_need, pool, addresses, events })
}

/// Why the pod needs no address from Bobbin now.
fn no_need(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if spec.host_network == Some(true) {
        Some("it uses the network of its node (hostNetwork)")
    } else if matches!(phase, Some("Succeeded" | "Failed")) {
        Some("it has ended")
    } else if spec.node_name.is_none() {
        Some("it is not scheduled to a node yet")
    } else {
        None
    }
}

async fn selected(client: &Client, namespace: &str, pod: &Pod) -> Result<Selected> {
    Ok(match select(client, namespace, pod).await? {
        Ok(selection) => Selected { name: selection.pool, rule: rule(selection.source), refused: None },
        Err(error) => {
            let refused = Some(error.to_string());
            Selected { name: error.selection.pool, rule: rule(error.selection.source), refused }
        }
    })
}

async fn addresses(client: &Client, namespace: &str, pod: &Pod) -> Result<Vec<Attachment>> {
    let assignments: Api<Lenient<IPAssignment>> = Api::all(client.clone());
    let name = pod.name_any();
    let mut found = Vec::new();
    for assignment in objects::list(&assignments, &format!("spec.podNamespace={namespace}")).await? {
        let since = since(&assignment, Some(pod));
        let spec = assignment.spec;
        if spec.pod_name.as_deref() != Some(&name) || !is_of(pod, spec.pod_uid.as_deref()) {
            continue;
        }
        found.push(Attachment {
            ipv4: spec.ipv4,
            ipv6: spec.ipv6,
            interface: spec.if_name,
            pool: spec.pool_name,
            block: spec.block_name,
            node: spec.node_name,
            since,
        });
    }
    Ok(found)
}

/// The newest events of the pod that Bobbin wrote. Without such an event, the newest that contains the error of a CNI plugin.
async fn events(client: &Client, namespace: &str, pod: &Pod) -> Result<Vec<PodNotice>> {
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

impl Report for Explanation {
    fn text(&self, _: bool) -> String {
        let now = Timestamp::now();
        let node = self.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
        let mut lines = vec![format!("Pod {}{node}", self.name)];
        if let Some(why) = self.no_need_because {
            lines.push(format!("  needs no address from Bobbin: {why}"));
        }
        for one in &self.addresses {
            let address = [&one.ipv4, &one.ipv6].into_iter().flatten().cloned().collect::<Vec<_>>().join(" and ");
            let Attachment { interface, pool, block, node, since, .. } = one;
            let age = age(*since, now);
            lines.push(format!(
                "  Address:  {address} on {interface}, from block {block} of pool {pool}, on node {node}, since {since:.0} ({age})"
            ));
        }
        if let Some(Selected { name, rule, refused }) = &self.pool {
            let is_used = self.addresses.iter().any(|one| one.pool == *name);
            let label = if is_used || self.addresses.is_empty() { "Pool:    " } else { "New pods:" };
            lines.push(format!("  {label} {name}, because {rule}"));
            if let Some(refused) = refused {
                let label = if self.addresses.is_empty() { "Refused: " } else { "New pods:" };
                lines.push(format!("  {label} {refused}"));
            }
        }
        if self.needs_address && self.addresses.is_empty() {
            lines.push("  Address:  none".to_owned());
            if self.events.is_empty() {
                lines.push("  No event says why. Kubelet may not have asked for an address yet.".to_owned());
            }
        }
        for event in &self.events {
            let seen = event.last_seen.map(|time| format!(", {} ago", age(time, now))).unwrap_or_default();
            lines.push(format!("  Event:    {}{seen}: {}", event.reason, event.message));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn pods_of_the_host_network_ended_and_unscheduled_pods_need_no_address() {
        let because =
            |spec: serde_json::Value, phase: &str| no_need(&pod(json!({"spec": spec, "status": {"phase": phase}})));
        let containers = json!([]);
        assert!(
            because(json!({"containers": containers, "nodeName": "n", "hostNetwork": true}), "Running")
                .is_some_and(|why| why.contains("hostNetwork"))
        );
        assert!(
            because(json!({"containers": containers, "nodeName": "n"}), "Succeeded")
                .is_some_and(|why| why.contains("ended"))
        );
        assert!(because(json!({"containers": containers}), "Pending").is_some_and(|why| why.contains("scheduled")));
        assert_eq!(because(json!({"containers": containers, "nodeName": "n"}), "Pending"), None);
    }

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
