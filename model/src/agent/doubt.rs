//! Doubts a block, reads it, and processes the answer.

use bobbin_node_agent::{BlockEvent, BlockState, Proof};

use super::{NOW, confirmed};
use crate::world::{Ownership, Read, World};

impl World {
    /// Puts a block in doubt because of a watch event. The event may be out of date.
    pub(super) fn doubt(&mut self, node: usize, block: usize) -> bool {
        if !self.connected(node) || self.nodes[node].blocks[block].is_none() {
            return false;
        }
        if self.ownership(node, block) == Ownership::ThisNode {
            if self.budget.old_events == 0 {
                return false;
            }
            self.budget.old_events -= 1;
        }
        self.on(node, block, BlockEvent::Doubt)
    }

    pub(super) fn read_doubted(&mut self, node: usize, block: usize) -> bool {
        let Some(BlockState::Doubted { doubts, .. }) = self.state(node, block) else { return false };
        if !self.connected(node) || self.nodes[node].read.is_some() {
            return false;
        }
        let found = self.ownership(node, block);
        self.nodes[node].read = Some(Read { block, found, doubts, fresh: true, current: true });
        true
    }

    /// Processes the answer to a read of a doubted block. Other programs may have changed the block since the read.
    pub(super) fn apply_read(&mut self, node: usize) -> bool {
        let Some(Read { block, found, doubts, fresh, current }) = self.nodes[node].read.take() else { return false };
        if !matches!(self.state(node, block), Some(BlockState::Doubted { .. })) {
            return true;
        }
        let gone = self.nodes[node].knows_gone;
        let event = BlockEvent::FoundOwned { now: NOW, doubts };
        match found {
            Ownership::ThisNode if gone => {
                if !self.has_resident(node, block) && self.on(node, block, event) {
                    self.on(node, block, BlockEvent::Release);
                }
            }
            Ownership::ThisNode => {
                self.prove(node, block, if fresh { confirmed() } else { Proof::None }, false);
                self.promote(node, block, event, true);
            }
            Ownership::EarlierNode => {
                if !gone && self.connected(node) && current {
                    self.write_owner(node, block);
                }
            }
            Ownership::Free if !self.has_resident(node, block) => {
                self.on(node, block, BlockEvent::FoundFree);
                self.nodes[node].routes[block] = false;
            }
            Ownership::Free => {
                if !gone && self.connected(node) {
                    self.recreate_assignments(node, Some(block));
                    self.prove(node, block, Proof::AssignmentsUnseen, false);
                    if current {
                        self.write_owner(node, block);
                    }
                }
            }
            Ownership::OtherNode => {
                self.on(node, block, BlockEvent::FoundForeign);
                self.nodes[node].routes[block] = false;
                self.vacate(node, block);
                self.invalidate(node);
            }
        }
        true
    }

    /// If the agent's read found that the node owns the doubted block, returns the block and the event that ends the doubt. Returns `None`
    /// if the read found anything else, or if the agent knows that its Node was deleted.
    pub(crate) fn read_finds_own_block(&self, node: usize) -> Option<(usize, BlockEvent)> {
        let read = self.nodes[node].read?;
        let own = read.found == Ownership::ThisNode && !self.nodes[node].knows_gone;
        own.then_some((read.block, BlockEvent::FoundOwned { now: NOW, doubts: read.doubts }))
    }

    pub(super) fn prove(&mut self, node: usize, block: usize, found: Proof, listed: bool) {
        if let Some(held) = &mut self.nodes[node].blocks[block] {
            held.proof = held.proof.confirmed(found, listed);
        }
    }

    /// Forgets a lost block if no attachment has an address of the block.
    pub(crate) fn vacate(&mut self, node: usize, block: usize) {
        if !self.has_resident(node, block) {
            self.on(node, block, BlockEvent::Vacated);
        }
    }
}
