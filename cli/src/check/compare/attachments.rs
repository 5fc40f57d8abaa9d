//! Attachments that are broken, lack their assignment, or share their address.

use std::collections::HashMap;
use std::net::IpAddr;

use bobbin_agent_status::{AttachmentState, AttachmentStatus};
use bobbin_crds::IPAssignment;

use super::{addresses_of, is_of, parsed, who, who_assigned};
use crate::check::finding::{Finding, Kind, Severity};
use crate::check::look::Look;

type Holder<'a> = (&'a str, &'a AttachmentStatus);

pub(super) fn compare(look: &Look) -> Vec<Finding> {
    let mut holders: HashMap<IpAddr, Vec<Holder>> = HashMap::new();
    for (node, status) in look.statuses() {
        for attachment in &status.attachments {
            for address in parsed(attachment.addresses()) {
                holders.entry(address).or_default().push((node, attachment));
            }
        }
    }
    let mut assigned: HashMap<IpAddr, &IPAssignment> = HashMap::new();
    for assignment in &look.assignments {
        assigned.extend(addresses_of(assignment).into_iter().map(|address| (address, assignment)));
    }
    let mut findings: Vec<Finding> =
        holders.iter().filter(|(_, each)| each.len() > 1).map(|(address, each)| held_twice(*address, each)).collect();
    for (node, status) in look.statuses() {
        for attachment in &status.attachments {
            if attachment.state == AttachmentState::Broken {
                findings.push(broken(node, attachment));
            }
            if !matches!(attachment.state, AttachmentState::Running | AttachmentState::Broken) {
                continue;
            }
            for address in parsed(attachment.addresses()) {
                match assigned.get(&address) {
                    None => findings.push(without_assignment(node, attachment, address)),
                    Some(assignment) if is_of(assignment, node, attachment) => {}
                    // The finding about the two holders already says what is wrong.
                    Some(_) if holders.get(&address).is_some_and(|each| each.len() > 1) => {}
                    Some(assignment) => findings.push(assigned_elsewhere(node, attachment, address, assignment)),
                }
            }
        }
    }
    findings
}

fn held_twice(address: IpAddr, holders: &[Holder]) -> Finding {
    let mut names: Vec<String> =
        holders.iter().map(|(node, attachment)| format!("{} on node {node}", who(attachment))).collect();
    names.sort();
    Finding {
        severity: Severity::Error,
        kind: Kind::AddressHeldTwice,
        object: format!("address {address}"),
        what: format!("{} attachments have the address: {}", holders.len(), names.join(" and ")),
        since: holders.iter().filter_map(|(_, attachment)| attachment.created_at).max(),
        bobbin: "nothing, because it never takes an address from a running pod".to_owned(),
        you: "delete all of these pods except one, so that the deleted pods get other addresses".to_owned(),
        identity: names.join("/"),
    }
}

fn broken(node: &str, attachment: &AttachmentStatus) -> Finding {
    Finding {
        severity: Severity::Error,
        kind: Kind::BrokenAttachment,
        object: who(attachment),
        what: format!("its host link on node {node} is gone, so the pod has no network"),
        since: attachment.broken_since,
        bobbin: "nothing, because the container still runs; the address stays held".to_owned(),
        you: "delete the pod, so that a new pod gets a network".to_owned(),
        identity: attachment.container_id.clone(),
    }
}

fn without_assignment(node: &str, attachment: &AttachmentStatus, address: IpAddr) -> Finding {
    Finding {
        severity: Severity::Error,
        kind: Kind::AttachmentWithoutAssignment,
        object: format!("address {address}"),
        what: format!("{} on node {node} has the address, but no IPAssignment says so", who(attachment)),
        since: attachment.created_at,
        bobbin:
            "the agent creates the IPAssignment as soon as the API server accepts it, at the latest at its next resync"
                .to_owned(),
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
            "{} on node {node} has the address, but its IPAssignment is of {} on node {}",
            who(attachment),
            who_assigned(other),
            other.spec.node_name
        ),
        since: Some(other.spec.created_at.0),
        bobbin: "nothing, because both pods may be running; the agent reports it with the event DuplicateAddress"
            .to_owned(),
        you: "delete the pod that should not have the address; if only one pod exists, delete the IPAssignment of the other"
            .to_owned(),
        identity: format!("{}/{}", attachment.container_id, other.spec.container_id),
    }
}
