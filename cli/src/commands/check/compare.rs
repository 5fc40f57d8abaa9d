//! Compares the API objects with the agents' views. Pure.

mod assignments;
mod attachments;
mod blocks;
mod cluster;
mod foreign_pods;
mod installation;
mod pods;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use bobbin_agent_status::AttachmentStatus;
use bobbin_crds::IPAssignment;

use super::finding::Finding;
use super::observation::Observation;
use crate::api::void::addresses_of;
pub(super) use assignments::pods_to_read;
pub(super) use pods::{PodName, waiting_pods};

/// What is wrong in one observation. An empty scope means all nodes and pools.
pub(super) fn compare(observed: &Observation, scope: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = attachments::compare(observed);
    findings.extend(assignments::compare(observed, scope));
    findings.extend(blocks::compare(observed));
    findings.extend(pods::compare(observed));
    findings.extend(cluster::compare(observed, scope));
    findings.extend(installation::compare(observed));
    findings.extend(foreign_pods::compare(observed));
    if observed.leader.is_missing() {
        findings = findings.into_iter().map(Finding::without_operator).collect();
    }
    findings
}

fn covers(scope: &BTreeSet<String>, node: &str) -> bool {
    scope.is_empty() || scope.contains(node)
}

/// The valid addresses among the texts.
fn parsed<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The owner of an attachment for messages, such as `pod shop/web`.
fn who(attachment: &AttachmentStatus) -> String {
    owner(&attachment.pod_namespace, &attachment.pod_name, &attachment.container_id)
}

fn who_assigned(assignment: &IPAssignment) -> String {
    let spec = &assignment.spec;
    let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
    owner(&text(&spec.pod_namespace), &text(&spec.pod_name), &spec.container_id)
}

fn owner(namespace: &str, pod: &str, container: &str) -> String {
    if pod.is_empty() { format!("container {container}") } else { format!("pod {namespace}/{pod}") }
}

/// Whether an assignment is of this attachment on this node.
fn is_of(assignment: &IPAssignment, node: &str, attachment: &AttachmentStatus) -> bool {
    let spec = &assignment.spec;
    spec.node_name == node && spec.container_id == attachment.container_id && spec.if_name == attachment.interface
}
