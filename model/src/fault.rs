//! The faults: crashes, power cuts, partitions, deleted Nodes, a restored snapshot, late writes, and unreadable objects.

use bobbin_node_agent::{BlockEvent, BlockState, Proof};

use crate::Variant;
use crate::action::Fault;
use crate::world::{ADDRESSES, BLOCKS, Held, Late, PODS, Stage, World, Write};

impl World {
    pub(crate) fn fault(&mut self, variant: Variant, fault: Fault) -> bool {
        match fault {
            Fault::Crash { node, written } => {
                if written {
                    self.save(node);
                }
                self.crash(variant, node)
            }
            Fault::CrashInExport { node, block } => {
                self.nodes[node].agent
                    && self.may_export(variant, node, block)
                    && self.export(node, block, false)
                    && self.crash(variant, node)
            }
            Fault::CrashInRead { node } => match self.read_finds_own_block(node) {
                Some((block, event)) => self.promote(node, block, event, false) && self.crash(variant, node),
                None => false,
            },
            Fault::Start { node } => self.start(variant, node),
            Fault::PowerOff { node } => self.power_off(node),
            Fault::Boot { node } => {
                let boots = !self.nodes[node].on && !self.restore_is_recent();
                self.nodes[node].on |= boots;
                boots
            }
            Fault::Partition { node } => {
                let parts = !self.nodes[node].partitioned && self.budget.partitions > 0 && !self.restore_is_recent();
                if parts {
                    self.budget.partitions -= 1;
                    self.nodes[node].partitioned = true;
                }
                parts
            }
            Fault::Heal { node } => {
                let heals = self.nodes[node].partitioned;
                if heals {
                    self.nodes[node].partitioned = false;
                    self.invalidate(node);
                }
                heals
            }
            Fault::DeleteNode { node } => {
                let deletes = self.budget.deleted_nodes > 0 && self.api.nodes[node].is_some();
                if deletes {
                    self.budget.deleted_nodes -= 1;
                    self.api.nodes[node] = None;
                }
                deletes
            }
            Fault::Register { node } => {
                let machine = &self.nodes[node];
                let registers = machine.on && !machine.partitioned && self.api.nodes[node].is_none();
                if registers {
                    self.api.nodes[node] = Some(self.next_uid);
                    self.next_uid += 1;
                }
                registers
            }
            Fault::LateWrite { node } => self.late_write(node),
            Fault::Snapshot => {
                let takes = self.budget.restores > 0 && self.snapshot.is_none();
                if takes {
                    self.snapshot = Some(self.api);
                }
                takes
            }
            Fault::Restore => {
                if self.snapshot.is_none() || self.budget.restores == 0 {
                    return false;
                }
                self.budget.restores -= 1;
                self.restore();
                self.snapshot = None;
                true
            }
            Fault::Unreadable { address } => {
                let Some(assignment) = self.api.assignments[address].as_mut().filter(|assignment| assignment.readable)
                else {
                    return false;
                };
                if self.budget.unreadable == 0 {
                    return false;
                }
                self.budget.unreadable -= 1;
                assignment.readable = false;
                true
            }
        }
    }

    /// Whether any running node has not noticed the last restore yet, or is in its quiet time. While this is true, the model lets no
    /// node boot, lose power or lose contact, because the protocol promises nothing for such a fault.
    fn restore_is_recent(&self) -> bool {
        self.nodes.iter().any(|node| node.on && (node.missed_restore || node.quiet))
    }

    fn crash(&mut self, variant: Variant, node: usize) -> bool {
        if !self.nodes[node].agent || self.budget.crashes == 0 {
            return false;
        }
        self.budget.crashes -= 1;
        let agent = &mut self.nodes[node];
        agent.agent = false;
        agent.blocks = [None; BLOCKS];
        agent.read = None;
        agent.suspects = [false; PODS];
        agent.knows_gone = false;
        agent.first_read = false;
        agent.assignments_compared = false;
        agent.blocks_compared = false;
        agent.quiet &= variant.keeps_quiet_time();
        for pod in self.pods.iter_mut().filter(|pod| pod.node == node) {
            if let Stage::Adding { .. } = pod.stage {
                // The ADD never answers, so the runtime calls DEL.
                pod.stage = Stage::Dead;
            }
            if pod.assignment == Write::Unsent {
                pod.assignment = Write::Unknown;
            }
        }
        true
    }

    /// The agent starts and restores its blocks from the checkpoint.
    fn start(&mut self, variant: Variant, node: usize) -> bool {
        if self.nodes[node].agent || !self.nodes[node].on {
            return false;
        }
        let trusted = !self.nodes[node].long_absence || variant == Variant::TrustAfterLongAbsence;
        self.nodes[node].agent = true;
        for block in 0..BLOCKS {
            let Some(saved) = self.nodes[node].saved[block] else { continue };
            let Some(state) = saved.state.restored(trusted) else { continue };
            let proof = Proof::restored(saved.assignments_listed);
            self.nodes[node].blocks[block] = Some(Held { state, proof });
            if !self.has_resident(node, block) {
                self.on(node, block, BlockEvent::Vacated);
            }
            // After a start, the agent's first pass over the kernel's network writes the routes of exported blocks.
            self.nodes[node].routes[block] = self.state(node, block).is_some_and(BlockState::exported);
        }
        true
    }

    fn power_off(&mut self, node: usize) -> bool {
        if !self.nodes[node].on || self.budget.crashes == 0 || self.restore_is_recent() {
            return false;
        }
        self.budget.crashes -= 1;
        let machine = &mut self.nodes[node];
        machine.on = false;
        machine.agent = false;
        machine.blocks = [None; BLOCKS];
        machine.saved = [None; BLOCKS];
        machine.routes = [false; BLOCKS];
        machine.excluded = [false; ADDRESSES];
        machine.suspects = [false; PODS];
        machine.read = None;
        // The model assumes that no write in flight outlives the boot of the machine that sent it.
        machine.late = None;
        machine.knows_gone = false;
        machine.long_absence = false;
        machine.first_read = false;
        machine.assignments_compared = false;
        machine.blocks_compared = false;
        machine.quiet = false;
        for pod in self.pods.iter_mut().filter(|pod| pod.node == node && pod.stage != Stage::Waiting) {
            pod.stage = Stage::Ended;
            pod.assignment = match pod.assignment {
                Write::None | Write::Unsent => Write::None,
                _ => Write::EarlierBoot,
            };
        }
        true
    }

    fn late_write(&mut self, node: usize) -> bool {
        let Some(late) = self.nodes[node].late.take() else { return false };
        match late {
            Late::Claim(block) => {
                let found = self.api.blocks[block];
                if found.owner.is_none() && !found.finalizer {
                    self.write_owner(node, block);
                }
            }
            Late::Release(block) => self.clear_owner(block, true),
        }
        true
    }
}
