//! Claims a block, reads back a claim with an unknown outcome, and brings a claimed block into service.

use bobbin_node_agent::{BlockEvent, BlockState, Proof};

use super::{NOW, confirmed};
use crate::Variant;
use crate::action::Answer;
use crate::world::{Held, Late, Ownership, World};

impl World {
    pub(super) fn claim(&mut self, node: usize, block: usize, answer: Answer) -> bool {
        let agent = &self.nodes[node];
        if !self.connected(node)
            || !agent.first_read
            || agent.knows_gone
            || agent.blocks[block].is_some()
            || self.api.blocks[block].owner.is_some()
            || (answer == Answer::Late && agent.late.is_some())
            || !self.lose(answer)
        {
            return false;
        }
        let proof = Proof::of_claim(confirmed(), self.api.blocks[block].finalizer, self.nodes[node].quiet);
        self.nodes[node].blocks[block] = Some(Held { state: BlockState::CLAIMING, proof });
        match answer {
            Answer::Arrives => {
                self.write_owner(node, block);
                self.claim_confirmed(node, block);
            }
            Answer::Lost => self.write_owner(node, block),
            Answer::NotApplied => {}
            Answer::Late => self.nodes[node].late = Some(Late::Claim(block)),
        }
        true
    }

    /// Returns whether this answer is possible: it arrives, or the budget allows that it gets lost. A lost answer reduces the budget.
    pub(crate) fn lose(&mut self, answer: Answer) -> bool {
        if answer == Answer::Arrives {
            return true;
        }
        let allowed = self.budget.lost > 0;
        self.budget.lost = self.budget.lost.saturating_sub(1);
        allowed
    }

    pub(super) fn claim_confirmed(&mut self, node: usize, block: usize) {
        let not_before = self.not_before(node);
        self.on(node, block, BlockEvent::ClaimConfirmed { now: NOW, not_before });
    }

    pub(super) fn read_back_claim(&mut self, node: usize, block: usize) -> bool {
        let quiet = self.nodes[node].quiet;
        let Some(Held { state: state @ BlockState::Claiming { .. }, proof }) = self.nodes[node].blocks[block] else {
            return false;
        };
        if !self.connected(node) {
            return false;
        }
        if self.ownership(node, block) == Ownership::ThisNode {
            let proof = Proof::of_claim(proof, proof == Proof::AssignmentsUnseen, quiet);
            self.nodes[node].blocks[block] = Some(Held { state, proof });
            self.claim_confirmed(node, block);
        } else {
            self.on(node, block, BlockEvent::ClaimFailed);
        }
        true
    }

    /// Whether a block may enter service. The claim must be confirmed, and the quiet time must be over.
    pub(crate) fn may_export(&self, variant: Variant, node: usize, block: usize) -> bool {
        let Some(BlockState::Exporting { not_before, .. }) = self.state(node, block) else { return false };
        not_before <= NOW || variant == Variant::NoQuietTime
    }

    /// Writes the route and then the checkpoint, and then changes the state. If `applied` is false, the agent is killed before it changes
    /// the state.
    pub(crate) fn export(&mut self, node: usize, block: usize, applied: bool) -> bool {
        self.nodes[node].routes[block] = true;
        self.promote(node, block, BlockEvent::Exported, applied)
    }
}
