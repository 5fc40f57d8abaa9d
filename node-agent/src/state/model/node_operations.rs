//! The steps of a simulated node's agent: claims, doubts, ADD, DEL and releases.

use super::*;

impl World {
    pub(super) fn claim(&mut self, node: usize, block: usize, answer_lost: bool) {
        if !self.nodes[node].agent.begin_claim(&name(block), "p") {
            return;
        }
        let uid = self.nodes[node].uid;
        let free = self.owner(block) == Owner::Free;
        let had_finalizer = self.api.blocks.get(&block).is_some_and(|stored| stored.finalizer);
        if free && let Some(stored) = self.api.blocks.get_mut(&block) {
            *stored = Stored { owner: Some((node, uid)), finalizer: true, deleted: false };
        }
        if !answer_lost {
            if free {
                self.add_block(node, block, if had_finalizer { Proof::AssignmentsUnseen } else { proven() });
            } else {
                self.nodes[node].agent.on(&name(block), BlockEvent::ClaimFailed);
            }
        }
    }

    pub(super) fn read_back_claims(&mut self, node: usize) {
        for block in 0..BLOCKS {
            if matches!(self.nodes[node].agent.block_state(&name(block)), Some(BlockState::Claiming { .. })) {
                if self.owns(node, block) {
                    self.add_block(node, block, Proof::AssignmentsUnseen);
                } else {
                    self.nodes[node].agent.on(&name(block), BlockEvent::ClaimFailed);
                }
            }
        }
    }

    pub(super) fn serve(&mut self, node: usize) {
        for block in 0..BLOCKS {
            if let Some(BlockState::Exporting { .. }) = self.nodes[node].agent.block_state(&name(block)) {
                self.promote(node, block, BlockEvent::Exported);
            }
        }
    }

    pub(super) fn resolve_doubts(&mut self, node: usize) {
        for block in 0..BLOCKS {
            let Some(BlockState::Doubted { doubts, .. }) = self.nodes[node].agent.block_state(&name(block)) else {
                continue;
            };
            let uid = self.nodes[node].uid;
            match self.owner(block) {
                Owner::Node((owner, _)) if owner == node => {
                    self.api.blocks.get_mut(&block).unwrap().owner = Some((node, uid));
                    self.promote(node, block, BlockEvent::FoundOwned { now: at(0), doubts });
                }
                Owner::Node(_) => drop(self.nodes[node].agent.found_foreign(&name(block))),
                Owner::Free => {
                    if !self.nodes[node].agent.found_free(&name(block)) {
                        self.create_missing_assignments(node);
                        *self.api.blocks.get_mut(&block).unwrap() =
                            Stored { owner: Some((node, uid)), finalizer: true, deleted: false };
                        self.promote(node, block, BlockEvent::FoundOwned { now: at(0), doubts });
                    }
                }
                Owner::NoSuchBlock => {
                    self.nodes[node].agent.found_free(&name(block));
                }
            }
        }
    }

    pub(super) fn add(&mut self, node: usize) {
        // If the block is not proven and another node has an assignment of the allocated address, the ADD tries another address.
        for _ in 0..4 {
            let container = self.containers;
            self.containers += 1;
            let (key, pod) = (key(container), PodRef::default());
            let request = AllocationRequest {
                key: &key,
                pod: &pod,
                pod_seen: false,
                network: None,
                pool: "p",
                cooldown: Duration::ZERO,
                boot_id: "boot",
                netns: None,
                at: jiff::Timestamp::UNIX_EPOCH,
            };
            let Ok(Allocation { attachment, token }) = self.nodes[node].agent.assign(&request, at(1)) else { return };
            let (pair, block) = (attachment.pair, block_of(attachment.pair));
            assert!(
                self.nodes[node].agent.exported().contains(&range(block)),
                "the node allocated an address from a block that is not exported"
            );
            if !self.faults {
                assert!(
                    self.owns(node, block) || self.was_recreated(node, block),
                    "n{node} allocated an address from block {block}, but does not own this block"
                );
            }
            let foreign = self.api.assignments.get(&pair).filter(|(owner, _)| *owner != node).copied();
            if token.proof != proven() && foreign.is_some() {
                self.nodes[node].agent.release(&key, at(1));
                let by = "another node".to_owned();
                self.nodes[node].agent.exclude(ConflictingAssignment { pair, name: name(block), by });
                continue;
            }
            self.nodes[node].agent.update(&key, |attachment| attachment.phase = AttachmentPhase::Live);
            self.nodes[node].pods.insert(container, pair);
            self.nodes[node].unanswered.insert(container);
            return;
        }
    }

    /// Whether the block's owner is this Node or an earlier Node with the same name.
    pub(super) fn was_recreated(&self, node: usize, block: usize) -> bool {
        matches!(self.owner(block), Owner::Node((owner, _)) if owner == node)
    }

    pub(super) fn answer_assignments(&mut self, node: usize) {
        for container in std::mem::take(&mut self.nodes[node].unanswered) {
            let Some(pair) = self.nodes[node].pods.get(&container).copied() else { continue };
            let (owner, _) = *self.api.assignments.entry(pair).or_insert((node, container));
            if owner != node {
                self.nodes[node].reported.insert(pair);
            }
            let foreign_block =
                matches!(self.owner(block_of(pair)), Owner::Node((block_owner, _)) if block_owner == owner);
            if owner != node && foreign_block {
                // The API server's answer came after the ADD had succeeded. Another node owns the block, so this node's attachment ends.
                self.nodes[node].pods.remove(&container);
                self.nodes[node].agent.release(&key(container), at(2));
            }
        }
    }

    pub(super) fn del(&mut self, node: usize, nth: usize) {
        let containers: Vec<usize> = self.nodes[node].pods.keys().copied().collect();
        if containers.is_empty() {
            return;
        }
        let container = containers[nth % containers.len()];
        let pair = self.nodes[node].pods.remove(&container).unwrap();
        self.nodes[node].unanswered.remove(&container);
        if self.api.assignments.get(&pair) == Some(&(node, container)) {
            self.api.assignments.remove(&pair);
        }
        assert!(self.nodes[node].agent.release(&key(container), at(2)).is_some());
    }

    pub(super) fn send_release(&mut self, node: usize, block: usize) {
        assert!(
            !self.nodes[node].pods.values().any(|pair| block_of(*pair) == block),
            "the node released a block that has an address in use"
        );
        if self.was_recreated(node, block) {
            self.api.blocks.get_mut(&block).unwrap().owner = None;
        }
    }

    /// Advances every release of a block on this node by one step.
    pub(super) fn continue_releases(&mut self, node: usize, answer_lost: bool) {
        for block in 0..BLOCKS {
            let name = name(block);
            let Some(BlockState::Releasing { stage, .. }) = self.nodes[node].agent.block_state(&name) else {
                continue;
            };
            match stage {
                ReleaseStage::DeletingAssignments => {
                    self.nodes[node].agent.on(&name, BlockEvent::AssignmentsDeleted);
                }
                ReleaseStage::WithdrawingRoute => {
                    assert!(
                        !self.nodes[node].agent.exported().contains(&range(block)),
                        "the node released a block whose route was still exported"
                    );
                    self.save(node, &[]);
                    self.nodes[node].agent.on(&name, BlockEvent::ReleaseSent);
                    self.save(node, &[]);
                    self.send_release(node, block);
                    if !answer_lost {
                        self.nodes[node].agent.on(&name, BlockEvent::Released);
                    }
                }
                // As long as the node owns the block, the agent repeats the write that releases the block.
                ReleaseStage::Sent => {
                    self.send_release(node, block);
                    self.nodes[node].agent.on(&name, BlockEvent::Released);
                }
            }
        }
    }
}
