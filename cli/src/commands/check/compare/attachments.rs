//! Attachments that are broken, lack their assignment, or share their address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use bobbin_agent_status::{AttachmentState, AttachmentStatus};
use bobbin_crds::{IPAssignment, is_static_pod, name};
use kube::ResourceExt;

use super::assignments::agent_says;
use super::{PodName, addresses_of, is_of, parsed, who, who_assigned};
use crate::api::objects::Read;
use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::Observation;

type Holder<'a> = (&'a str, &'a AttachmentStatus);

pub(super) fn compare(observed: &Observation) -> Vec<Finding> {
    let mut holders: BTreeMap<IpAddr, Vec<Holder>> = BTreeMap::new();
    for (node, status) in observed.statuses() {
        for attachment in &status.attachments {
            for address in parsed(attachment.addresses()) {
                holders.entry(address).or_default().push((node, attachment));
            }
        }
    }
    holders.retain(|_, each| each.len() > 1);
    let mut assigned: HashMap<IpAddr, &IPAssignment> = HashMap::new();
    for assignment in &observed.assignments {
        assigned.extend(addresses_of(assignment).into_iter().map(|address| (address, assignment)));
    }
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    for (address, each) in &holders {
        let recorded = assigned.get(address).map(|assignment| recorded(observed, assignment));
        let finding = held_twice(*address, each, &recorded.unwrap_or_default());
        // Two attachments that share an IPv4-IPv6 pair are one finding.
        if told.insert(finding.identity.clone()) {
            findings.push(finding);
        }
    }
    for (node, status) in observed.statuses() {
        for attachment in &status.attachments {
            findings.extend((attachment.state == AttachmentState::Broken).then(|| broken(observed, node, attachment)));
            if !has_undecodable_assignment(observed, attachment) {
                findings.extend(wrong(node, attachment, &assigned, |address| holders.contains_key(&address)));
            }
        }
    }
    findings
}

/// Whether the attachment's assignment exists, but can't be decoded. The assignment may be right.
fn has_undecodable_assignment(observed: &Observation, attachment: &AttachmentStatus) -> bool {
    let ipv4 = attachment.ipv4.as_ref().and_then(|text| text.parse().ok());
    let ipv6 = attachment.ipv6.as_ref().and_then(|text| text.parse().ok());
    name::assignment(ipv4, ipv6).is_some_and(|name| observed.is_undecodable::<IPAssignment>(&name))
}

/// What is wrong with the assignment of an attachment. `is_shared` says whether several attachments have an address. If
/// so, a separate finding already reports the address.
fn wrong(
    node: &str,
    attachment: &AttachmentStatus,
    assigned: &HashMap<IpAddr, &IPAssignment>,
    is_shared: impl Fn(IpAddr) -> bool,
) -> Option<Finding> {
    let wrong = |address: IpAddr| match assigned.get(&address) {
        None => Some(without_assignment(node, attachment, address)),
        Some(assignment) if is_of(assignment, node, attachment) || is_shared(address) => None,
        Some(assignment) => Some(assigned_elsewhere(node, attachment, address, assignment)),
    };
    let lasts = matches!(attachment.state, AttachmentState::Running | AttachmentState::Broken);
    // One assignment covers both addresses of a pair, so one finding is enough.
    parsed(attachment.addresses()).into_iter().filter(|_| lasts).find_map(wrong)
}

/// The end of a sentence about an address that two attachments have. It says to which pod the assignment gives the address.
fn recorded(observed: &Observation, assignment: &IPAssignment) -> String {
    let (who, node) = (who_assigned(assignment), &assignment.spec.node_name);
    let says = agent_says(observed, assignment);
    format!("; IPAssignment {} assigns the address to {who} on node {node}, and {says}", assignment.name_any())
}

fn held_twice(address: IpAddr, holders: &[Holder], recorded: &str) -> Finding {
    let mut names: Vec<String> =
        holders.iter().map(|(node, attachment)| format!("{} on node {node}", who(attachment))).collect();
    names.sort();
    Finding {
        severity: Severity::Error,
        kind: Kind::AddressHeldTwice,
        object: format!("address {address}"),
        what: format!("{} attachments have the address: {}{recorded}", holders.len(), names.join(" and ")),
        since: holders.iter().filter_map(|(_, attachment)| attachment.created_at).max(),
        bobbin: "if one of the nodes owns the block and has the IPAssignment, the other node's agent removes the network of the other pod; otherwise nothing"
            .to_owned(),
        you: "delete all of these pods except one, so that the deleted pods get other addresses".to_owned(),
        identity: names.join("/"),
    }
}

fn broken(observed: &Observation, node: &str, attachment: &AttachmentStatus) -> Finding {
    // A static pod also runs without its mirror pod.
    let is_gone = matches!(observed.pods.get(&pod_name(attachment)), Some(Read::Absent));
    if is_gone && !is_static_pod(&attachment.pod_uid) {
        return broken_without_pod(node, attachment);
    }
    Finding {
        severity: Severity::Error,
        kind: Kind::BrokenAttachment,
        object: who(attachment),
        what: format!("the pod's host link on node {node} is gone, so the pod has no network"),
        since: attachment.broken_since,
        bobbin: "nothing, because the container still runs; the address stays held".to_owned(),
        you: "delete the pod, so that a new pod gets a network".to_owned(),
        identity: attachment.container_id.clone(),
    }
}

/// The finding about a broken attachment whose pod is deleted, but for which the runtime has not called DEL.
fn broken_without_pod(node: &str, attachment: &AttachmentStatus) -> Finding {
    Finding {
        severity: Severity::Warning,
        kind: Kind::BrokenAttachment,
        object: who(attachment),
        what: format!("the pod does not exist, and its host link on node {node} is gone, but the runtime has not called DEL"),
        since: attachment.broken_since,
        bobbin: "the agent releases the address when two checks, some minutes apart, show that the pod's network namespace or the pod is gone"
            .to_owned(),
        you: "nothing, unless the attachment stays: then see the agent's log".to_owned(),
        identity: attachment.container_id.clone(),
    }
}

/// The pods of the broken attachments. What happens with such an attachment depends on its pod.
pub(super) fn pods_of_broken(observed: &Observation) -> impl Iterator<Item = PodName> {
    let all = observed.statuses().flat_map(|(_, status)| &status.attachments);
    let broken = all.filter(|one| one.state == AttachmentState::Broken && !one.pod_name.is_empty());
    broken.map(pod_name)
}

fn pod_name(attachment: &AttachmentStatus) -> PodName {
    (attachment.pod_namespace.clone(), attachment.pod_name.clone())
}

fn without_assignment(node: &str, attachment: &AttachmentStatus, address: IpAddr) -> Finding {
    Finding {
        severity: Severity::Error,
        kind: Kind::AttachmentWithoutAssignment,
        object: format!("address {address}"),
        what: format!("{} on node {node} has the address, but no IPAssignment says so", who(attachment)),
        since: attachment.created_at,
        bobbin: "the agent tries to create the IPAssignment, at the latest at the agent's next resync".to_owned(),
        you: format!("if this stays, find out why writes fail: kubectl bobbin node {node}, and the log of the agent"),
        identity: attachment.container_id.clone(),
    }
}

fn assigned_elsewhere(node: &str, attachment: &AttachmentStatus, address: IpAddr, other: &IPAssignment) -> Finding {
    Finding {
        severity: Severity::Error,
        kind: Kind::AddressOfAnotherAttachment,
        object: format!("address {address}"),
        what: format!(
            "{} on node {node} has the address, but the IPAssignment of the address names {} on node {}",
            who(attachment),
            who_assigned(other),
            other.spec.node_name
        ),
        since: Some(other.spec.created_at.0),
        bobbin: format!(
            "if node {} owns the block, the agent removes the network of this pod; otherwise nothing, because both pods may be running. The event DuplicateAddress says which of the two happened",
            other.spec.node_name
        ),
        you: "delete the pod that should not have the address; if only one pod exists, delete the IPAssignment of the other pod"
            .to_owned(),
        identity: format!("{}/{}", attachment.container_id, other.spec.container_id),
    }
}
