//! Releases a block that no attachment uses: deletes the assignments, withdraws the route, then sends one conditional write.

use bobbin_node_agent::{BlockEvent, BlockState, ReleaseStage};

use crate::Variant;
use crate::action::Answer;
use crate::world::{Late, Ownership, World, Write, addresses_of, block_of};

impl World {
    fn stage(&self, node: usize, block: usize) -> Option<ReleaseStage> {
        match self.state(node, block)? {
            BlockState::Releasing { stage, .. } => Some(stage),
            _ => None,
        }
    }

    /// Lists the node's assignments in the block. The release does not continue while a write is pending, or while a pod may still use one
    /// of the assignments.
    pub(super) fn list_own_assignments(&mut self, variant: Variant, node: usize, block: usize) -> bool {
        if self.stage(node, block) != Some(ReleaseStage::DeletingAssignments) || !self.connected(node) {
            return false;
        }
        let pending = |pod: &crate::world::Pod| {
            pod.node == node
                && block_of(pod.address) == block
                && matches!(pod.assignment, Write::Unsent | Write::Unknown | Write::Deleting)
        };
        let skip = variant == Variant::ReleaseBeforeDeleting;
        if !skip && self.pods.iter().any(pending) {
            return false;
        }
        let mut left = false;
        for address in addresses_of(block) {
            let Some(assignment) = self.api.assignments[address].filter(|assignment| assignment.node == node) else {
                continue;
            };
            if assignment.readable && self.pods[assignment.pod].assignment == Write::EarlierBoot {
                self.delete_assignment(address);
                self.pods[assignment.pod].assignment = Write::None;
            } else {
                left = true;
            }
        }
        (!left || skip) && self.on(node, block, BlockEvent::AssignmentsDeleted)
    }

    /// Saves the release in the checkpoint, and then withdraws the route.
    pub(super) fn withdraw(&mut self, node: usize, block: usize) -> bool {
        if self.stage(node, block) != Some(ReleaseStage::WithdrawingRoute) || !self.nodes[node].routes[block] {
            return false;
        }
        self.save(node);
        self.nodes[node].routes[block] = false;
        true
    }

    /// Sends the write that releases the block. If the agent sent this write before, it first reads the block. The agent sends the write
    /// again only if this node still owns the block.
    pub(super) fn send_release(&mut self, variant: Variant, node: usize, block: usize, answer: Answer) -> bool {
        let exported = self.nodes[node].routes[block] && variant != Variant::ReleaseBeforeWithdrawing;
        let owned = matches!(self.ownership(node, block), Ownership::ThisNode | Ownership::EarlierNode);
        if !self.connected(node) || exported || (answer == Answer::Late && self.nodes[node].late.is_some()) {
            return false;
        }
        match self.stage(node, block) {
            Some(ReleaseStage::WithdrawingRoute) => {
                if !self.lose(answer) {
                    return false;
                }
                self.on(node, block, BlockEvent::ReleaseSent);
                self.save(node);
                if !owned {
                    return true;
                }
            }
            Some(ReleaseStage::Sent) if !owned => {
                return answer == Answer::Arrives && self.on(node, block, BlockEvent::Released);
            }
            Some(ReleaseStage::Sent) if self.lose(answer) => {}
            _ => return false,
        }
        match answer {
            Answer::Arrives => {
                self.clear_owner(block, true);
                self.on(node, block, BlockEvent::Released);
            }
            Answer::Lost => self.clear_owner(block, true),
            Answer::NotApplied => {}
            Answer::Late => self.nodes[node].late = Some(Late::Release(block)),
        }
        true
    }
}
