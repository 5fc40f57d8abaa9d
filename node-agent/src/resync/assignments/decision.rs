//! Finds the mismatches between the node's IPAssignments and the node's attachments. This module does no I/O.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bobbin_ipam::{AttachmentKey, BlockRange};

use crate::assignments::{AssignmentInfo, assignment_name};
use crate::state::Attachment;

/// Identifies an assignment that the agent may delete, and the attachment of this assignment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AssignmentIdentity {
    /// The assignment's name.
    pub name: String,
    /// The attachment that the assignment names.
    pub key: AttachmentKey,
    /// The assignment's UID.
    pub uid: String,
}

impl AssignmentIdentity {
    pub fn of(assignment: &AssignmentInfo) -> AssignmentIdentity {
        AssignmentIdentity { name: assignment.name.clone(), key: assignment.key.clone(), uid: assignment.uid.clone() }
    }
}

/// A difference between the node's assignments and its attachments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mismatch<'a> {
    /// The assignment was created in an earlier boot and has no attachment, so its pod is certainly gone.
    EarlierBoot(&'a AssignmentInfo),
    /// No attachment has both the key and the address of the assignment. The address counts as in use until the assignment's pod is gone.
    Orphaned(&'a AssignmentInfo),
    /// A live attachment has no assignment.
    Missing(Box<Attachment>),
    /// The assignment names a block that this node does not own, or that lacks an address of the assignment.
    Void {
        /// The assignment's name.
        name: String,
        /// The block that the assignment names.
        block: String,
        /// Whether this node owns the block. If so, the assignment is void because the block lacks an address of the assignment.
        is_owner: bool,
    },
}

/// Compares assignments and attachments. The caller must list the assignments before it reads the attachments.
pub(crate) fn compare<'a>(
    assignments: &'a [AssignmentInfo],
    attachments: &[Attachment],
    blocks: &BTreeMap<String, BlockRange>,
    boot_id: &str,
) -> Vec<Mismatch<'a>> {
    let by_key: HashMap<&AttachmentKey, &Attachment> =
        attachments.iter().map(|attachment| (&attachment.key, attachment)).collect();
    let mut assigned: HashMap<AttachmentKey, String> = HashMap::new();
    let mut mismatches = Vec::new();
    for assignment in assignments {
        if !assignment.readable {
            // If an assignment can't be decoded, only its name is readable. The name contains the address, so compare the names.
            let owner = attachments.iter().find(|each| assignment_name(each.pair).as_deref() == Some(&assignment.name));
            match owner {
                Some(attachment) => drop(assigned.insert(attachment.key.clone(), assignment.name.clone())),
                None => mismatches.push(Mismatch::Orphaned(assignment)),
            }
            continue;
        }
        let (key, name) = (assignment.key.clone(), assignment.name.clone());
        let is_held =
            by_key.get(&key).is_some_and(|attachment| assignment_name(attachment.pair).as_deref() == Some(&name));
        if is_held {
            assigned.insert(key, name);
        } else if assignment.boot_id == boot_id {
            mismatches.push(Mismatch::Orphaned(assignment));
        } else {
            mismatches.push(Mismatch::EarlierBoot(assignment));
            continue;
        }
        if !is_in_own_block(assignment, blocks) {
            let (name, block) = (assignment.name.clone(), assignment.block_name.clone());
            let is_owner = blocks.contains_key(&block);
            mismatches.push(Mismatch::Void { name, block, is_owner });
        }
    }
    // Skip an attachment whose ADD is still running, because the agent is still creating its assignment.
    let missing = attachments
        .iter()
        .filter(|attachment| attachment.needs_assignment() && !assigned.contains_key(&attachment.key));
    mismatches.extend(missing.map(|attachment| Mismatch::Missing(Box::new(attachment.clone()))));
    mismatches
}

fn is_in_own_block(assignment: &AssignmentInfo, blocks: &BTreeMap<String, BlockRange>) -> bool {
    let addresses: Vec<IpAddr> = assignment.addresses().collect();
    blocks
        .get(&assignment.block_name)
        .is_some_and(|range| addresses.iter().all(|address| range.offset_of(*address).is_some()))
}

#[cfg(test)]
mod tests;
