//! Excludes an address from allocation while it has an IPAssignment that belongs to no attachment of this node.

use bobbin_api_client::ReadError;
use bobbin_ipam::{BlockRange, IpPair};
use bobbin_messages::event::agent as event;

use super::Resync;
use crate::assignments::{AssignmentInfo, assignment_name, get_assignment, pair_of};
use crate::state::{Attachment, ConflictingAssignment, exclusion};

/// The largest number of conflicting assignments that one pass reads. Each excluded address costs one read, and a node may have many
/// excluded addresses.
const MAX_RECHECKS_PER_PASS: usize = 64;

impl Resync {
    /// Calls [`Self::exclude`] if the assignment's address is in a block of this node.
    pub(super) fn exclude_in_own_block(&self, assignment: &AssignmentInfo) {
        let ranges = self.own_ranges();
        if let Some(range) = ranges.values().find(|range| pair_of(range, &assignment.name).is_some()) {
            self.exclude(range, assignment);
        }
    }

    /// Excludes the assignment's address from allocation while the assignment exists. Ignores an address outside the range.
    pub(super) fn exclude(&self, range: &BlockRange, assignment: &AssignmentInfo) {
        let Some(pair) = pair_of(range, &assignment.name) else { return };
        let (name, by) = (assignment.name.clone(), assignment.by());
        let sentence = format!(
            "IPAssignment {name} assigns address {pair} to {by}. Node {node} owns the block of this address, and does not allocate the address while the IPAssignment exists. If the IPAssignment names a pod that no longer runs, delete the IPAssignment. To see the IPAssignment, run: kubectl get ipassignment {name} -o yaml",
            node = self.cluster.node_name(),
        );
        if exclusion::exclude(&self.node_state, &self.checkpoint, ConflictingAssignment { pair, name, by }) {
            tracing::warn!("{sentence}");
            self.events.on_node(&event::ADDRESS_CONFLICT, &sentence);
        }
    }

    /// Reads the conflicting assignments of the next excluded addresses after `last`, and ends each exclusion whose conflict no longer
    /// exists. Returns the last address that this pass has checked.
    pub(super) async fn recheck_conflicts(&self, last: Option<IpPair>) -> Option<IpPair> {
        let batch = next_batch(self.node_state.conflicts(), last, MAX_RECHECKS_PER_PASS);
        let checked = batch.last().map(|conflict| conflict.pair);
        for conflict in batch {
            match get_assignment(&self.clients, &conflict.name).await {
                Err(ReadError::NotFound) => self.end_exclusion(&conflict),
                Ok(assignment) if self.is_held(&assignment) && !self.has_two_holders(conflict.pair) => {
                    self.end_exclusion(&conflict);
                }
                // The conflicting assignment still exists, so another node may own the block now. Try again to create the assignment of
                // this node's attachment. If the conflicting assignment prevents the create, the agent reads the block to learn its owner.
                Ok(_) => self.recreate(conflict.pair),
                Err(error) => {
                    tracing::debug!(assignment = conflict.name, %error, "the agent can't read a conflicting IPAssignment, so its address stays excluded from allocation");
                }
            }
        }
        checked
    }

    /// Whether the assignment belongs to an attachment of this node, or this agent has a pending write for the assignment.
    pub(super) fn is_held(&self, assignment: &AssignmentInfo) -> bool {
        let held = |attachment: &Attachment| assignment_name(attachment.pair).as_deref() == Some(&assignment.name);
        assignment.node_name == self.cluster.node_name()
            && (self.node_state.attachment(&assignment.key).as_ref().is_some_and(held)
                || self.assignment_writer.busy(&assignment.name))
    }

    /// Whether two attachments of this node have the same address. Only a fault can cause such a duplicate, and the agent has already
    /// reported the duplicate.
    fn has_two_holders(&self, pair: IpPair) -> bool {
        self.node_state.attachments().iter().filter(|attachment| attachment.pair == pair).count() > 1
    }

    fn recreate(&self, pair: IpPair) {
        let attachment = self.node_state.attachments().into_iter().find(|attachment| attachment.pair == pair);
        if let Some(attachment) = attachment.filter(Attachment::needs_assignment)
            && !self.assignment_writer.busy_with(pair)
        {
            self.assignment_writer.recreate(&attachment);
        }
    }

    fn end_exclusion(&self, conflict: &ConflictingAssignment) {
        self.recreate(conflict.pair);
        if exclusion::end_exclusion(&self.node_state, &self.checkpoint, conflict) {
            tracing::info!(address = %conflict.pair, "an address conflict is resolved; after the cool-down, this node can allocate the address again");
        }
    }
}

/// The next `max` conflicts after the address `last`, in the order of their addresses. After the highest address, the order continues with
/// the lowest.
fn next_batch(
    mut conflicts: Vec<ConflictingAssignment>,
    last: Option<IpPair>,
    max: usize,
) -> Vec<ConflictingAssignment> {
    conflicts.sort_by_key(|conflict| conflict.pair);
    let checked = conflicts.partition_point(|conflict| Some(conflict.pair) <= last);
    conflicts.rotate_left(checked);
    conflicts.truncate(max);
    conflicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_conflict_has_its_turn_although_a_pass_is_limited() {
        let pair = |last: u8| IpPair { ipv4: Some([10, 0, 0, last].into()), ipv6: None };
        let conflict = |last| ConflictingAssignment { pair: pair(last), name: String::new(), by: String::new() };
        let batch = |last: Option<u8>| -> Vec<IpPair> {
            let all = [3, 1, 2].map(conflict).to_vec();
            next_batch(all, last.map(pair), 2).into_iter().map(|conflict| conflict.pair).collect()
        };
        assert_eq!(batch(None), [pair(1), pair(2)]);
        assert_eq!(batch(Some(2)), [pair(3), pair(1)]);
        assert_eq!(batch(Some(9)), [pair(1), pair(2)]);
    }
}
