//! Finds assignments without an attachment, and void assignments.

use std::collections::BTreeSet;

use bobbin_agent_status::{AgentStatus, AttachmentStatus};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use bobbin_ipam::void_assignment::{PodAbsence, PodEvidence};
use kube::ResourceExt;

use super::attachments::pods_of_broken;
use super::{PodName, addresses_of, covers, is_of, parsed, who, who_assigned};
use crate::api::objects::Read;
use crate::api::void::{Case, Outlook, facts, pod_of};
use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::{Observation, View};

pub(super) fn compare(observed: &Observation, scope: &BTreeSet<String>) -> Vec<Finding> {
    let in_scope = in_scope(observed, scope);
    in_scope.filter_map(|assignment| void(observed, assignment).or_else(|| unused(observed, assignment))).collect()
}

/// The pods that the check must read: those of void assignments, of assignments without an attachment, and of broken attachments. What
/// happens with such an assignment or attachment depends on its pod.
pub(crate) fn pods_to_read(observed: &Observation, scope: &BTreeSet<String>) -> BTreeSet<PodName> {
    let in_scope = in_scope(observed, scope).filter(|assignment| {
        case(observed, assignment).why_void().is_some() || without_attachment(observed, assignment).is_some()
    });
    in_scope.filter_map(pod_name).chain(pods_of_broken(observed)).collect()
}

fn in_scope<'a>(
    observed: &'a Observation,
    scope: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a IPAssignment> + use<'a> {
    observed.assignments.iter().filter(|one| covers(scope, &one.spec.node_name))
}

/// The assignment with its block and its pod, as far as the check knows them.
fn case<'a>(observed: &'a Observation, assignment: &'a IPAssignment) -> Case<'a> {
    let spec = &assignment.spec;
    let block = match observed.blocks.get(&spec.block_name) {
        Some(block) => Read::Present(block),
        None if observed.is_undecodable::<AddressBlock>(&spec.block_name) => Read::Unknown,
        None => Read::Absent,
    };
    let pod = pod_name(assignment).and_then(|pod| observed.pods.get(&pod)).map_or(Read::Unknown, Read::as_ref);
    Case::new(assignment, block, pod, observed.nodes.contains(&spec.node_name))
}

fn pod_name(assignment: &IPAssignment) -> Option<PodName> {
    facts(assignment).pod().map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}

/// A finding if the assignment is void.
fn void(observed: &Observation, assignment: &IPAssignment) -> Option<Finding> {
    let (spec, case) = (&assignment.spec, case(observed, assignment));
    let (why, outlook) = case.why_void().zip(case.outlook())?;
    let Outlook { mut operator, you, .. } = outlook;
    let pool = &spec.pool_name;
    if observed.is_undecodable::<AddressPool>(pool) {
        operator = format!("{operator}, but not while it can't decode AddressPool {pool}");
    }
    Some(Finding {
        severity: Severity::Warning,
        kind: Kind::VoidAssignment,
        object: format!("IPAssignment {}", assignment.name_any()),
        what: format!(
            "the IPAssignment of {} on node {} is void: {why}; {}{}",
            who_assigned(assignment),
            spec.node_name,
            pod_says(&case, assignment).map(|says| format!("{says}; ")).unwrap_or_default(),
            agent_says(observed, assignment)
        ),
        since: Some(spec.created_at.0),
        bobbin: operator,
        you: you.unwrap_or_else(|| without_advice(observed, assignment)),
        identity: spec.container_id.clone(),
    })
}

/// What a person must do about a void assignment that the operator deletes by itself. A person must act only if the agent still has the
/// attachment, because the attachment's container may then run without a pod.
fn without_advice(observed: &Observation, assignment: &IPAssignment) -> String {
    let node = &assignment.spec.node_name;
    match observed.views.get(node) {
        Some(View::Status(status)) if status.attachments.iter().any(|one| is_of(assignment, node, one)) => {
            format!("end the pod's sandbox on node {node}: crictl stopp {}", assignment.spec.container_id)
        }
        _ => "nothing".to_owned(),
    }
}

/// What the check knows about the assignment's pod; `None` if the assignment names no pod.
fn pod_says(case: &Case<'_>, assignment: &IPAssignment) -> Option<String> {
    let pod = pod_of(assignment);
    match case.pod_evidence() {
        None | Some(PodEvidence::Unreadable) => Some(format!("the check has no answer about {pod}")),
        Some(PodEvidence::NotNamed) => None,
        Some(PodEvidence::NoMirrorPod) => Some(format!("{pod} is static and has no mirror pod")),
        Some(PodEvidence::Gone(_)) => case.why_gone(),
        Some(PodEvidence::OtherAddresses) => Some(format!("{pod} reports only other addresses")),
        Some(PodEvidence::NoAddressYet) => Some(format!("{pod} reports no address yet")),
        Some(PodEvidence::HasAddress) => Some(format!("{pod} reports this address")),
    }
}

/// The status document of the node's agent, if it lacks the assignment's attachment. Returns `None` if the document contains the
/// attachment, if there is no document, or if the Node is deleted.
fn without_attachment<'a>(observed: &'a Observation, assignment: &IPAssignment) -> Option<&'a AgentStatus> {
    let node = &assignment.spec.node_name;
    // For a deleted node, the finding `DeletedNode` covers the assignments that are not void.
    if !observed.nodes.contains(node) {
        return None;
    }
    let Some(View::Status(status)) = observed.views.get(node) else { return None };
    let is_of = |attachment| is_of(assignment, node, attachment);
    (!status.attachments.iter().any(is_of)).then_some(status.as_ref())
}

/// Whether no pod with the UID of the assignment exists. The agent then deletes the assignment after two comparisons.
fn agent_sees_no_pod(case: &Case<'_>) -> bool {
    let absent = PodEvidence::Gone(PodAbsence::Absent);
    case.pod_evidence().is_some_and(|pod| pod == absent || pod == PodEvidence::Gone(PodAbsence::OtherPod))
}

/// The finding about an assignment for which the node's agent has no attachment.
fn unused(observed: &Observation, assignment: &IPAssignment) -> Option<Finding> {
    let node = &assignment.spec.node_name;
    let status = without_attachment(observed, assignment)?;
    let when = status.resync.next.map(|next| format!("; the next comparison begins by {next:.0}")).unwrap_or_default();
    let case = case(observed, assignment);
    let you = if agent_sees_no_pod(&case) {
        "wait until the agent has compared twice; if the IPAssignment stays for more than 15 minutes, see the agent's log"
    } else {
        "if the pod still exists, but does not have this address, delete the IPAssignment"
    };
    Some(Finding {
        severity: Severity::Warning,
        kind: Kind::AssignmentWithoutAttachment,
        object: format!("IPAssignment {}", assignment.name_any()),
        what: format!(
            "the IPAssignment holds the address for {} on node {node}, but {}{}",
            who_assigned(assignment),
            agent_says(observed, assignment),
            case.why_gone().map(|gone| format!("; {gone}")).unwrap_or_default()
        ),
        since: Some(assignment.spec.created_at.0),
        bobbin: format!(
            "the agent deletes the IPAssignment if two comparisons, some minutes apart, show that the pod is gone{when}"
        ),
        you: you.to_owned(),
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
        None => format!("the agent of node {node} knows no attachment with this address"),
    }
}
