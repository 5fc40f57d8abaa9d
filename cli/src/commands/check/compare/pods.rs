//! Pods whose ADD fails, so that they wait for an address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bobbin_agent_status::{AgentStatus, AttachmentState};
use jiff::Timestamp;

use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::Observation;

/// Kubelet repeats a failed ADD several times within this time. So a pod whose last failure is older no longer waits.
const REPEAT_TIME: Duration = Duration::from_mins(3);

/// A pod, by namespace and name.
pub(crate) type PodName = (String, String);

/// The failed ADDs of a pod that the agent remembers: the times of the first and the last failure, and the last error.
#[derive(Debug)]
struct Wait<'a> {
    since: Option<Timestamp>,
    last: Option<Timestamp>,
    error: &'a str,
}

/// The pods that still wait for their network, because their last ADD failed. Some of these pods may already be deleted.
pub(crate) fn waiting_pods(status: &AgentStatus) -> BTreeSet<PodName> {
    waits(status).into_keys().map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).collect()
}

pub(super) fn compare(observed: &Observation) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, status) in observed.statuses() {
        for ((namespace, name), wait) in waits(status) {
            if !observed.gone_pods.contains(&(namespace.to_owned(), name.to_owned())) {
                findings.push(without_network(node, namespace, name, &wait));
            }
        }
    }
    findings
}

/// The pods whose last ADD failed a short time ago, and that have no attachment.
fn waits(status: &AgentStatus) -> BTreeMap<(&str, &str), Wait<'_>> {
    let mut waits: BTreeMap<(&str, &str), Wait> = BTreeMap::new();
    // The newest error comes last.
    for error in status.errors.iter().filter(|error| error.verb == "ADD" && !error.pod_name.is_empty()) {
        let pod = (error.pod_namespace.as_str(), error.pod_name.as_str());
        let since = waits.get(&pod).and_then(|wait| wait.since).or(error.time);
        waits.insert(pod, Wait { since, last: error.time, error: &error.error });
    }
    let is_recent = |wait: &Wait| match (status.time, wait.last) {
        (Some(now), Some(last)) => now.duration_since(last).unsigned_abs() < REPEAT_TIME,
        _ => true,
    };
    let has_network = |pod: &(&str, &str)| {
        status.attachments.iter().any(|one| {
            (one.pod_namespace.as_str(), one.pod_name.as_str()) == *pod
                && matches!(one.state, AttachmentState::Running | AttachmentState::Broken)
        })
    };
    waits.retain(|pod, wait| is_recent(wait) && !has_network(pod));
    waits
}

fn without_network(node: &str, namespace: &str, name: &str, wait: &Wait) -> Finding {
    Finding {
        severity: Severity::Error,
        kind: Kind::PodWithoutNetwork,
        object: format!("pod {namespace}/{name}"),
        what: format!("the pod waits for an address, because its last ADD on node {node} failed: {}", wait.error),
        since: wait.since,
        bobbin: "the agent tries again each time kubelet repeats the ADD".to_owned(),
        you: format!(
            "do what the error says; to see the pod's pool, rule and events, run: kubectl bobbin explain {name} -n {namespace}"
        ),
        identity: node.to_owned(),
    }
}
