//! Decides whether an assignment is void, and whether the operator may delete it.
//!
//! The operator acts on this decision, and `kubectl bobbin` predicts it. An address counts as unused only if the evidence
//! proves that it is unused.

mod evidence;

use std::net::IpAddr;

pub use evidence::{AssignmentFacts, BlockEvidence, NodeFacts, PodAbsence, PodEvidence, PodFacts};

/// Why an assignment is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidReason<'a> {
    /// The block that the assignment names does not exist.
    BlockAbsent,
    /// The assignment's node does not own the block. The owner is `None` if no node owns it.
    OtherOwner(Option<&'a str>),
    /// The block does not contain this address of the assignment.
    Outside(IpAddr),
}

/// The decision about one assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The assignment is valid, or the evidence does not prove that it is void.
    NotVoid,
    /// No agent can have written this assignment for a pod, because the block never had the address. The operator deletes the
    /// assignment at once.
    Forged,
    /// The assignment is void and its Node does not exist. The operator deletes the assignment with everything that the
    /// deleted node owns, after the grace period.
    VoidNodeGone,
    /// The assignment is void and its pod is gone. The operator deletes the assignment if a later check finds the same.
    VoidPodGone,
    /// The assignment is void, but its pod may use the address.
    VoidInUse,
}

/// Decides about an assignment. On a denied node, an assignment's pod also counts as gone if the assignment names no pod, or a static pod
/// without a mirror pod.
pub fn verdict(assignment: &AssignmentFacts<'_>, block: &BlockEvidence, pod: PodEvidence, node: NodeFacts) -> Verdict {
    if why_void(assignment, block).is_none() {
        return Verdict::NotVoid;
    }
    match pod {
        _ if never_had_address(assignment, block) && pod.lacks_address() => Verdict::Forged,
        _ if node.is_gone => Verdict::VoidNodeGone,
        PodEvidence::Gone(_) => Verdict::VoidPodGone,
        PodEvidence::NotNamed | PodEvidence::NoMirrorPod if node.is_denied => Verdict::VoidPodGone,
        _ => Verdict::VoidInUse,
    }
}

/// Why the assignment is void; `None` if it is valid, or if the evidence does not prove that it is void.
pub fn why_void<'a>(assignment: &AssignmentFacts<'_>, block: &'a BlockEvidence) -> Option<VoidReason<'a>> {
    match block {
        BlockEvidence::Unreadable => None,
        BlockEvidence::Absent => Some(VoidReason::BlockAbsent),
        BlockEvidence::Block { owner, .. } if owner.as_deref() != Some(assignment.node) => {
            Some(VoidReason::OtherOwner(owner.as_deref()))
        }
        BlockEvidence::Block { .. } => outside(assignment, block).map(VoidReason::Outside),
    }
}

/// The first address of the assignment that its block does not contain.
fn outside(assignment: &AssignmentFacts<'_>, block: &BlockEvidence) -> Option<IpAddr> {
    let BlockEvidence::Block { range: Some(range), .. } = block else { return None };
    assignment.addresses().find(|address| range.offset_of(*address).is_none())
}

/// Whether the block is older than the assignment, and lacks an address of the assignment.
fn never_had_address(assignment: &AssignmentFacts<'_>, block: &BlockEvidence) -> bool {
    let BlockEvidence::Block { created, .. } = block else { return false };
    // The API server sets both creation times, in whole seconds. Equal times do not prove that the block is the older
    // object.
    let is_older = created.zip(assignment.created).is_some_and(|(block, assignment)| block < assignment);
    is_older && outside(assignment, block).is_some()
}

#[cfg(test)]
mod tests;
