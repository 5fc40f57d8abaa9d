//! The steps of an agent. [`BlockState`] and [`Proof`] make all decisions. The steps call these types in the same order as the agent's
//! tasks do.

mod claim;
mod doubt;
mod release;
mod resync;

use bobbin_ipam::BootTime;
use bobbin_node_agent::{BlockEvent, BlockState, Next, Proof, ProofGeneration, SettledState};

use crate::Variant;
use crate::action::AgentStep;
use crate::world::{BLOCKS, Held, Plan, Saved, Stage, World, block_of};

/// The time at which every step happens.
pub(crate) const NOW: BootTime = BootTime(std::time::Duration::ZERO);
/// When the quiet time ends, in steps of the model that happen during a quiet time. Later than [`NOW`].
const QUIET_UNTIL: BootTime = BootTime(std::time::Duration::from_secs(15));

/// The proof of a block that the API server confirmed after the last invalidation. An invalidation in the model replaces this proof by
/// [`Proof::None`], which has the same effect as a proof of an older generation.
pub(crate) fn confirmed() -> Proof {
    Proof::Confirmed(ProofGeneration::default())
}

impl World {
    pub(crate) fn agent_step(&mut self, variant: Variant, node: usize, step: AgentStep) -> bool {
        if !self.nodes[node].agent {
            return false;
        }
        match step {
            AgentStep::Claim { block, answer } => self.claim(node, block, answer),
            AgentStep::ReadBackClaim { block } => self.read_back_claim(node, block),
            AgentStep::Export { block } => self.may_export(variant, node, block) && self.export(node, block, true),
            AgentStep::Doubt { block } => self.doubt(node, block),
            AgentStep::ReadDoubted { block } => self.read_doubted(node, block),
            AgentStep::ApplyRead => self.apply_read(node),
            AgentStep::BeginRelease { block } => {
                let begins = self.budget.releases > 0
                    && !self.has_resident(node, block)
                    && self.on(node, block, BlockEvent::Release);
                self.budget.releases -= u8::from(begins);
                begins
            }
            AgentStep::ListOwnAssignments { block } => self.list_own_assignments(variant, node, block),
            AgentStep::Withdraw { block } => self.withdraw(node, block),
            AgentStep::SendRelease { block, answer } => self.send_release(variant, node, block, answer),
            AgentStep::CancelRelease { block } => {
                let not_before = self.not_before(node);
                !self.nodes[node].knows_gone
                    && self.on(node, block, BlockEvent::ReleaseCancelled { now: NOW, not_before })
            }
            AgentStep::CompareAssignments => self.compare_assignments(node),
            AgentStep::CompareBlocks => self.compare_blocks(node),
            AgentStep::ListAssignments { block } => self.list_assignments(variant, node, block),
            AgentStep::EndExclusion { address } => self.end_exclusion(node, address),
            AgentStep::SeeNode => self.connected(node) && self.see_node(node),
            AgentStep::NoticeRestore => self.notice_restore(variant, node),
            AgentStep::QuietTimeEnds => self.quiet_time_ends(node),
            AgentStep::Look => self.look(variant, node),
        }
    }

    pub(crate) fn state(&self, node: usize, block: usize) -> Option<BlockState> {
        self.nodes[node].blocks[block].map(|held| held.state)
    }

    /// Applies an event to a block, as the agent's state does. Returns whether the block changed.
    pub(crate) fn on(&mut self, node: usize, block: usize, event: BlockEvent) -> bool {
        let Some(held) = self.nodes[node].blocks[block] else { return false };
        let next = match held.state.on(event) {
            Next::Unchanged => return false,
            Next::Forgotten => None,
            Next::State(state) => Some(Held { state, proof: held.proof.after(state) }),
        };
        self.nodes[node].blocks[block] = next;
        if next.is_none_or(|held| held.state.revokes()) {
            for pod in self.pods.iter_mut().filter(|pod| pod.node == node && block_of(pod.address) == block) {
                if let Stage::Adding { current, .. } = &mut pod.stage {
                    *current = false;
                }
            }
        }
        true
    }

    /// Computes the block's state after the event, and saves this state in the checkpoint. Then applies the event if `applied` is true.
    pub(crate) fn promote(&mut self, node: usize, block: usize, event: BlockEvent, applied: bool) -> bool {
        let Some(Next::State(state)) = self.state(node, block).map(|state| state.on(event)) else { return false };
        self.save(node);
        if let Some(saved) = &mut self.nodes[node].saved[block] {
            saved.state = state;
        }
        if applied {
            self.on(node, block, event);
        }
        true
    }

    /// Writes the agent's blocks to the checkpoint. Leaves out the blocks whose first claim is not confirmed.
    pub(crate) fn save(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        for (saved, held) in node.saved.iter_mut().zip(&node.blocks) {
            *saved = held
                .filter(|held| !matches!(held.state, BlockState::Claiming { .. }))
                .map(|held| Saved { state: held.state, assignments_listed: held.proof != Proof::AssignmentsUnseen });
        }
    }

    /// Invalidates all proofs. The next pass of the resync then compares the node's assignments with the API server.
    pub(crate) fn invalidate(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.assignments_compared = false;
        for held in node.blocks.iter_mut().flatten().filter(|held| held.proof == confirmed()) {
            held.proof = Proof::None;
        }
        if let Some(read) = &mut node.read {
            read.fresh = false;
        }
    }

    pub(crate) fn doubt_all(&mut self, node: usize) {
        for block in 0..BLOCKS {
            self.on(node, block, BlockEvent::Doubt);
        }
    }

    /// The earliest time at which a block that the node gets now may enter service.
    pub(crate) fn not_before(&self, node: usize) -> BootTime {
        if self.nodes[node].quiet { QUIET_UNTIL } else { NOW }
    }

    /// Replaces counters by the smallest values with the same effect, so that the model has fewer different states.
    pub(crate) fn normalize(&mut self) {
        for node in &mut self.nodes {
            for block in 0..BLOCKS {
                let at_read = node.read.filter(|read| read.block == block).map(|read| read.doubts);
                if let Some(Held { state: BlockState::Doubted { doubts, .. }, .. }) = &mut node.blocks[block] {
                    *doubts = u32::from(at_read.is_some_and(|at_read| at_read != *doubts));
                }
                if let Some(Saved { state: BlockState::Doubted { doubts, .. }, .. }) = &mut node.saved[block] {
                    *doubts = 0;
                }
                if !node.quiet {
                    let states = node.blocks[block].iter_mut().map(|held| &mut held.state);
                    states.chain(node.saved[block].iter_mut().map(|saved| &mut saved.state)).for_each(end_quiet_time);
                }
            }
            if let Some(read) = &mut node.read {
                read.doubts = 0;
            }
            if self.budget.crashes == 0 && node.agent {
                node.saved = [None; BLOCKS];
            }
        }
        for pod in self.pods.iter_mut().filter(|pod| pod.is_idle()) {
            (pod.node, pod.address) = (0, 0);
        }
        for plan in &mut self.operators {
            let refused = match plan {
                Plan::Finalizer { current, .. } => !*current,
                Plan::Reclaim { assignments, blocks, .. } => !assignments.contains(&true) && !blocks.contains(&true),
                Plan::Idle => false,
            };
            if refused {
                *plan = Plan::Idle;
            }
        }
        self.operators.sort();
    }
}

/// Lets the block enter service from now on, because the quiet time is over.
fn end_quiet_time(state: &mut BlockState) {
    match state {
        BlockState::Exporting { not_before, .. }
        | BlockState::Doubted { before: SettledState::Exporting { not_before }, .. } => *not_before = NOW,
        _ => {}
    }
}
