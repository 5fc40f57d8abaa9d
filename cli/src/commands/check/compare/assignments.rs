//! Assignments that no attachment has, and void assignments.

use std::collections::BTreeSet;

use bobbin_agent_status::AttachmentStatus;
use bobbin_crds::{AddressBlock, IPAssignment};
use kube::ResourceExt;

use super::{addresses_of, covers, is_of, parsed, who, who_assigned};
use crate::api::void::why_void;
use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::{Observation, View};

pub(super) fn compare(observed: &Observation, scope: &BTreeSet<String>) -> Vec<Finding> {
    let of_nodes = observed.assignments.iter().filter(|one| {
        // The finding about a deleted node covers its assignments.
        covers(scope, &one.spec.node_name) && observed.nodes.contains(&one.spec.node_name)
    });
    of_nodes.filter_map(|assignment| void(observed, assignment).or_else(|| unused(observed, assignment))).collect()
}

/// A finding if the assignment is void.
fn void(observed: &Observation, assignment: &IPAssignment) -> Option<Finding> {
    let spec = &assignment.spec;
    let block = observed.blocks.get(&spec.block_name);
    if block.is_none() && observed.is_undecodable::<AddressBlock>(&spec.block_name) {
        return None;
    }
    let why = why_void(assignment, block)?;
    Some(Finding {
        severity: Severity::Warning,
        kind: Kind::VoidAssignment,
        object: format!("IPAssignment {}", assignment.name_any()),
        what: format!(
            "the IPAssignment of {} on node {} is void: {why}; {}",
            who_assigned(assignment),
            spec.node_name,
            agent_says(observed, assignment)
        ),
        since: Some(spec.created_at.0),
        bobbin: "the operator deletes the IPAssignment when two checks, 15 minutes apart, show that the pod is gone; a forged IPAssignment is deleted at once"
            .to_owned(),
        you: "if the pod runs, delete the pod; if the IPAssignment names no pod and stays, delete the IPAssignment".to_owned(),
        identity: spec.container_id.clone(),
    })
}

/// A finding if the node's agent knows no attachment with the assignment.
fn unused(observed: &Observation, assignment: &IPAssignment) -> Option<Finding> {
    let node = &assignment.spec.node_name;
    let Some(View::Status(status)) = observed.views.get(node) else { return None };
    if status.attachments.iter().any(|attachment| is_of(assignment, node, attachment)) {
        return None;
    }
    let when = status.resync.next.map(|next| format!("; the next comparison begins by {next:.0}")).unwrap_or_default();
    Some(Finding {
        severity: Severity::Warning,
        kind: Kind::AssignmentWithoutAttachment,
        object: format!("IPAssignment {}", assignment.name_any()),
        what: format!(
            "the IPAssignment holds the address for {} on node {node}, but {}",
            who_assigned(assignment),
            agent_says(observed, assignment)
        ),
        since: Some(assignment.spec.created_at.0),
        bobbin: format!("the agent deletes the IPAssignment if two comparisons show that the pod is gone{when}"),
        you: "if the pod still exists, but does not have this address, delete the IPAssignment".to_owned(),
        identity: assignment.spec.container_id.clone(),
    })
}

/// What the agent of the assignment's node says about the attachment and the addresses.
pub(super) fn agent_says(observed: &Observation, assignment: &IPAssignment) -> String {
    let node = &assignment.spec.node_name;
    let status = match observed.views.get(node) {
        Some(View::Status(status)) => status,
        Some(View::Missing(_)) => return format!("the agent of node {node} gives no answer"),
        None => return format!("the check has no answer of an agent of node {node}"),
    };
    if let Some(own) = status.attachments.iter().find(|one| is_of(assignment, node, one)) {
        return format!("the agent of node {node} has this attachment in the state {}", own.state);
    }
    let addresses = addresses_of(assignment);
    let has_address = |one: &&AttachmentStatus| parsed(one.addresses()).iter().any(|each| addresses.contains(each));
    match status.attachments.iter().find(has_address) {
        Some(other) => format!("the agent of node {node} says that {} has the address", who(other)),
        None => format!("the agent of node {node} has no such attachment"),
    }
}
