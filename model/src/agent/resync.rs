//! The resync, the search for attachments whose pods no longer exist, and an agent's reactions to a changed Node and a restored API server.

use std::collections::HashSet;
use std::time::Duration;

use bobbin_ipam::{BootTime, DeletionGuard};
use bobbin_node_agent::{BlockEvent, BlockState, Proof};

use super::{NOW, confirmed};
use crate::Variant;
use crate::world::{ADDRESSES, BLOCKS, Held, Ownership, PODS, Pod, Rule, Stage, World, Write, addresses_of, block_of};

/// The time between two observations of a pod.
const APART: Duration = Duration::from_mins(5);

impl World {
    /// Creates missing assignments, and deletes the readable assignments of an earlier boot. If one of the node's remaining assignments has
    /// no attachment, excludes its address.
    pub(super) fn compare_assignments(&mut self, node: usize) -> bool {
        if !self.connected(node) {
            return false;
        }
        self.see_node(node);
        self.recreate_assignments(node, None);
        for address in 0..ADDRESSES {
            let Some(assignment) = self.api.assignments[address].filter(|assignment| assignment.node == node) else {
                continue;
            };
            let pod = self.pods[assignment.pod];
            if pod.holds(node) && pod.address == address || pod.node == node && pod.assignment == Write::Deleting {
                continue;
            }
            if pod.assignment == Write::EarlierBoot && assignment.readable {
                self.delete_assignment(address);
                self.pods[assignment.pod].assignment = Write::None;
            } else if self.nodes[node].blocks[block_of(address)].is_some() {
                self.nodes[node].excluded[address] = true;
            }
        }
        self.nodes[node].assignments_compared = true;
        true
    }

    /// Creates the missing assignments of living attachments in one block, or in all blocks.
    pub(super) fn recreate_assignments(&mut self, node: usize, block: Option<usize>) {
        for pod in 0..PODS {
            let Stage::Live = self.pods[pod].stage else { continue };
            if self.pods[pod].node == node && block.is_none_or(|block| block_of(self.pods[pod].address) == block) {
                self.write_assignment(pod);
            }
        }
    }

    pub(super) fn compare_blocks(&mut self, node: usize) -> bool {
        if !self.connected(node) || !self.nodes[node].assignments_compared {
            return false;
        }
        let gone = self.nodes[node].knows_gone;
        for block in 0..BLOCKS {
            match (self.state(node, block), self.ownership(node, block)) {
                (Some(BlockState::Lost), Ownership::Free) if !gone => {
                    self.recreate_assignments(node, Some(block));
                    self.write_owner(node, block);
                    self.claimed_back(node, block);
                }
                (Some(BlockState::Lost), Ownership::ThisNode) => self.claimed_back(node, block),
                (Some(BlockState::Claiming { .. } | BlockState::Lost), _)
                | (None, Ownership::Free | Ownership::OtherNode) => {}
                (Some(_), Ownership::ThisNode) => self.prove(node, block, confirmed(), false),
                (Some(_), _) => {
                    self.on(node, block, BlockEvent::Doubt);
                }
                (None, Ownership::EarlierNode) if gone => {}
                (None, found) => {
                    if found == Ownership::EarlierNode {
                        self.write_owner(node, block);
                    }
                    let proof = Proof::of_claim(confirmed(), true, self.nodes[node].quiet);
                    self.nodes[node].blocks[block] = Some(Held { state: BlockState::CLAIMING, proof });
                    self.claim_confirmed(node, block);
                    if gone {
                        self.on(node, block, BlockEvent::Doubt);
                    }
                }
            }
        }
        self.nodes[node].first_read = true;
        self.nodes[node].blocks_compared = true;
        self.nodes[node].long_absence = false;
        true
    }

    fn claimed_back(&mut self, node: usize, block: usize) {
        let not_before = self.not_before(node);
        self.on(node, block, BlockEvent::ClaimedBack { now: NOW, not_before });
    }

    /// Excludes each address of the block for which another attachment has an assignment. Then marks the block as proven.
    pub(super) fn list_assignments(&mut self, variant: Variant, node: usize, block: usize) -> bool {
        let settled = |held: &Held| {
            held.proof == Proof::AssignmentsUnseen
                && !matches!(held.state, BlockState::Claiming { .. } | BlockState::Doubted { .. } | BlockState::Lost)
        };
        if !self.connected(node)
            || self.nodes[node].quiet
            || self.ownership(node, block) != Ownership::ThisNode
            || !self.nodes[node].blocks[block].as_ref().is_some_and(settled)
        {
            return false;
        }
        for address in addresses_of(block) {
            let Some(assignment) = self.api.assignments[address] else { continue };
            let own = self.pods[assignment.pod].holds(node) && self.pods[assignment.pod].address == address;
            let absent = variant == Variant::UnreadableIsAbsent && !assignment.readable;
            if !own && !absent {
                self.nodes[node].excluded[address] = true;
            }
        }
        self.prove(node, block, confirmed(), true);
        true
    }

    pub(super) fn end_exclusion(&mut self, node: usize, address: usize) -> bool {
        let ends =
            self.connected(node) && self.nodes[node].excluded[address] && self.api.assignments[address].is_none();
        self.nodes[node].excluded[address] &= !ends;
        ends
    }

    /// If the Node was deleted or has another UID, puts every block in doubt.
    pub(super) fn see_node(&mut self, node: usize) -> bool {
        let (known, gone) = (self.nodes[node].uid, self.nodes[node].knows_gone);
        match self.api.nodes[node] {
            None if gone => return false,
            None => {
                self.nodes[node].knows_gone = true;
                self.doubt_all(node);
            }
            Some(uid) if uid == known && !gone => return false,
            Some(uid) => {
                self.nodes[node].knows_gone = false;
                self.nodes[node].uid = uid;
                if uid != known {
                    self.invalidate(node);
                    self.doubt_all(node);
                }
            }
        }
        true
    }

    pub(super) fn notice_restore(&mut self, variant: Variant, node: usize) -> bool {
        if !self.nodes[node].missed_restore || self.nodes[node].partitioned {
            return false;
        }
        self.invalidate(node);
        self.nodes[node].missed_restore = false;
        self.nodes[node].quiet = variant != Variant::NoQuietTime;
        true
    }

    /// The quiet time ends only after every running node is in contact with the API server and has caught up. A node has caught up when it
    /// has compared its assignments and blocks, read its doubted blocks, and sent its queued assignments.
    pub(super) fn quiet_time_ends(&mut self, node: usize) -> bool {
        let in_contact = |number: usize| {
            let node = &self.nodes[number];
            let doubted = |held: &Held| matches!(held.state, BlockState::Doubted { .. });
            let compared =
                node.assignments_compared && node.blocks_compared && !node.blocks.iter().flatten().any(doubted);
            let queued = |pod: &Pod| pod.holds(number) && matches!(pod.assignment, Write::Unsent | Write::Unknown);
            !node.on || (self.connected(number) && compared && !self.pods.iter().any(queued))
        };
        let ends = self.nodes[node].quiet && (0..self.nodes.len()).all(in_contact);
        self.nodes[node].quiet &= !ends;
        ends
    }

    /// Frees each attachment whose pod was missing in two observations. The model assumes that the kubelet ends the containers of a
    /// missing pod before the second observation.
    pub(super) fn look(&mut self, variant: Variant, node: usize) -> bool {
        if !self.connected(node) {
            return false;
        }
        let absent = |pod: usize| {
            self.pods[pod].node == node
                && matches!(self.pods[pod].stage, Stage::Live | Stage::Dead)
                && !self.api.pods[pod]
        };
        let now: HashSet<usize> = (0..PODS).filter(|pod| absent(*pod)).collect();
        let before: HashSet<usize> = (0..PODS).filter(|pod| self.nodes[node].suspects[*pod]).collect();
        let two_looks = variant != Variant::FreeOnOneLook;
        if two_looks && now.intersection(&before).any(|pod| self.pods[*pod].living()) {
            return false;
        }
        let mut guard = DeletionGuard::new();
        let earlier = if two_looks { &before } else { &now };
        guard.observe(earlier, PODS, NOW, APART);
        let decision = guard.observe(&now, PODS, BootTime(APART), APART);
        for pod in &decision.to_delete {
            if self.pods[*pod].living() {
                self.breaks(Rule::Freed);
            }
            self.free(*pod);
        }
        let suspects = std::array::from_fn(|pod| now.contains(&pod) && !decision.to_delete.contains(&pod));
        let changed = self.nodes[node].suspects != suspects || !decision.to_delete.is_empty();
        self.nodes[node].suspects = suspects;
        changed
    }
}
