//! The steps of an attachment: ADD, its assignment, and DEL.

use bobbin_node_agent::Proof;

use crate::Variant;
use crate::action::{Answer, PodStep};
use crate::agent::confirmed;
use crate::world::{Rule, Stage, World, Write, addresses_of, block_of};

impl World {
    pub(crate) fn pod_step(&mut self, variant: Variant, pod: usize, step: PodStep) -> bool {
        let node = self.pods[pod].node;
        match step {
            PodStep::Take { node, block } => self.take(node, pod, block),
            PodStep::CreateAssignment { answer } => self.create(pod, answer),
            PodStep::AnswerAdd => self.nodes[node].agent && self.answer_add(variant, pod),
            PodStep::Del => {
                let ends = self.nodes[node].agent && matches!(self.pods[pod].stage, Stage::Live | Stage::Dead);
                if ends {
                    self.api.pods[pod] = false;
                    self.free(pod);
                }
                ends
            }
            PodStep::Die => {
                let dies = !self.nodes[node].agent && self.pods[pod].living();
                if dies {
                    self.pods[pod].stage = Stage::Dead;
                    self.api.pods[pod] = false;
                }
                dies
            }
            PodStep::DeleteAssignment => {
                if !self.connected(node) || self.pods[pod].assignment != Write::Deleting {
                    return false;
                }
                let address = self.pods[pod].address;
                if self.api.assignments[address].is_some_and(|assignment| assignment.pod == pod) {
                    self.delete_assignment(address);
                }
                self.pods[pod].assignment = Write::None;
                true
            }
        }
    }

    /// ADD takes the lowest free address of a serving block. After a start of the agent, an ADD waits for the first read of the blocks, but
    /// only while the API server is reachable.
    fn take(&mut self, node: usize, pod: usize, block: usize) -> bool {
        let agent = &self.nodes[node];
        let in_turn = self.pods[..pod].iter().all(|other| other.stage != Stage::Waiting);
        if self.pods[pod].stage != Stage::Waiting || !in_turn || !agent.agent {
            return false;
        }
        let Some(held) = agent.blocks[block].filter(|held| held.state.assignable()) else { return false };
        if self.connected(node) && !agent.first_read {
            return false;
        }
        let free = |address: &usize| {
            !agent.excluded[*address] && !self.pods.iter().any(|pod| pod.holds(node) && pod.address == *address)
        };
        let Some(address) = addresses_of(block).find(free) else { return false };
        let unaware = self.restored && (agent.missed_restore || !agent.blocks_compared);
        if !agent.routes[block] {
            self.breaks(Rule::Order);
        }
        if !unaware && self.api.blocks[block].owner.is_none_or(|owner| owner.node != node) {
            self.breaks(Rule::ForeignBlock);
        }
        self.api.pods[pod] = true;
        let taken = &mut self.pods[pod];
        (taken.node, taken.address) = (node, address);
        (taken.stage, taken.assignment) = (Stage::Adding { proof: held.proof, current: true }, Write::Unsent);
        true
    }

    fn create(&mut self, pod: usize, answer: Answer) -> bool {
        let created = self.pods[pod];
        let alive = matches!(created.stage, Stage::Adding { .. } | Stage::Live);
        let deleting = |other: &crate::world::Pod| {
            other.node == created.node && other.address == created.address && other.assignment == Write::Deleting
        };
        if !alive
            || !matches!(created.assignment, Write::Unsent | Write::Unknown)
            || !self.connected(created.node)
            || self.pods.iter().any(deleting)
            || answer == Answer::Late
            || !self.lose(answer)
        {
            return false;
        }
        match answer {
            Answer::Arrives => self.write_assignment(pod),
            Answer::Lost => {
                self.create_assignment(pod);
                self.pods[pod].assignment = Write::Unknown;
            }
            Answer::NotApplied | Answer::Late => self.pods[pod].assignment = Write::Unknown,
        }
        true
    }

    /// Creates the assignment of an attachment. Also handles the case that another attachment already has an assignment with the same
    /// address.
    pub(crate) fn write_assignment(&mut self, pod: usize) {
        let (node, address) = (self.pods[pod].node, self.pods[pod].address);
        if self.create_assignment(pod) {
            self.pods[pod].assignment = Write::Confirmed;
            return;
        }
        let Some(found) = self.api.assignments[address] else { return };
        let of_ended = found.node == node && found.readable && !self.pods[found.pod].holds(node);
        if let Stage::Adding { .. } = self.pods[pod].stage {
            // The ADD takes a different address.
            self.pods[pod].stage = Stage::Waiting;
            self.pods[pod].assignment = Write::None;
        } else if of_ended {
            self.delete_assignment(address);
            self.pods[found.pod].assignment = Write::None;
            self.create_assignment(pod);
            self.pods[pod].assignment = Write::Confirmed;
            return;
        } else {
            self.pods[pod].assignment = Write::Unsent;
        }
        if !std::mem::replace(&mut self.nodes[node].excluded[address], true) {
            self.invalidate(node);
        }
        let owner = self.api.blocks[block_of(address)].owner;
        let theirs = found.readable && found.node != node && owner.is_some_and(|owner| owner.node == found.node);
        if self.pods[pod].living() && theirs {
            // Another node has the assignment and owns the block. So the agent of the pod's node frees the pod's attachment, as a DEL does.
            self.pods[pod].assignment = Write::None;
            self.free(pod);
        }
    }

    /// ADD answers, or undoes its work. It undoes its work in two cases:
    ///
    /// - The block was doubted or lost after ADD took the address.
    /// - ADD's wait for the confirmation timed out, and the block's assignments had not been listed when ADD took the address.
    fn answer_add(&mut self, variant: Variant, pod: usize) -> bool {
        let Stage::Adding { proof, current } = self.pods[pod].stage else { return false };
        let assignment = self.pods[pod].assignment;
        let answered = assignment == Write::Confirmed || proof == confirmed() || variant == Variant::AnswerUnproven;
        // ADD stops waiting for the confirmation after a timeout. The model has no time, so ADD stops when no answer can arrive.
        let timed_out = !self.connected(self.pods[pod].node) || assignment == Write::Unknown;
        if !current {
            self.undo(pod);
        } else if answered {
            self.pods[pod].stage = Stage::Live;
        } else if !timed_out {
            return false;
        } else if variant.waits_for_list() && proof == Proof::AssignmentsUnseen {
            self.undo(pod);
        } else {
            self.pods[pod].stage = Stage::Live;
        }
        true
    }

    fn undo(&mut self, pod: usize) {
        let unsent = self.pods[pod].assignment == Write::Unsent;
        self.free(pod);
        if unsent {
            self.pods[pod].stage = Stage::Waiting;
        }
    }

    /// The agent frees the address, and queues the deletion of the assignment.
    pub(crate) fn free(&mut self, pod: usize) {
        let freed = &mut self.pods[pod];
        freed.stage = Stage::Ended;
        freed.assignment = match freed.assignment {
            Write::None | Write::Unsent => Write::None,
            _ => Write::Deleting,
        };
        let (node, block) = (freed.node, block_of(freed.address));
        self.nodes[node].suspects[pod] = false;
        self.vacate(node, block);
    }
}
