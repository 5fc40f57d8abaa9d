//! The steps of the operators. The operators release the blocks and assignments of deleted nodes, and remove the finalizers of free blocks.
//!
//! Each step either reads or writes. Between two steps, other programs may act, including the other operator.

use crate::action::OperatorStep;
use crate::world::{ADDRESSES, BLOCKS, Plan, Stage, World, addresses_of};

impl World {
    /// Whether the grace period of a deleted Node may be over. The model makes three assumptions about the end of a grace period. The
    /// machine is off or runs no pod. A running agent knows that its Node was deleted. A stopped agent has been away for longer than half
    /// of the grace period.
    fn grace_may_be_over(&self, node: usize) -> bool {
        let machine = &self.nodes[node];
        let idle =
            !self.pods.iter().any(|pod| pod.node == node && matches!(pod.stage, Stage::Live | Stage::Adding { .. }));
        self.api.nodes[node].is_none() && (!machine.on || (idle && (!machine.agent || machine.knows_gone)))
    }

    pub(crate) fn operator_step(&mut self, operator: usize, step: OperatorStep) -> bool {
        match (step, self.operators[operator]) {
            (OperatorStep::PlanReclaim { node }, Plan::Idle) => self.plan_reclaim(operator, node),
            (OperatorStep::PlanFinalizer { block }, Plan::Idle) => {
                // Every assignment in the LIST response counts, even one that can't be decoded.
                let empty = addresses_of(block).all(|address| self.api.assignments[address].is_none());
                let found = self.api.blocks[block];
                let planned = found.owner.is_none()
                    && found.finalizer
                    && empty
                    && !self.operators.contains(&Plan::Finalizer { block, current: true });
                if planned {
                    self.operators[operator] = Plan::Finalizer { block, current: true };
                }
                planned
            }
            (
                OperatorStep::DeleteAssignments,
                Plan::Reclaim { node, assignments, blocks, assignments_deleted: false },
            ) => {
                for address in (0..ADDRESSES).filter(|address| assignments[*address]) {
                    self.delete_assignment(address);
                }
                self.operators[operator] =
                    Plan::Reclaim { node, assignments: [false; ADDRESSES], blocks, assignments_deleted: true };
                true
            }
            (OperatorStep::ReleaseBlocks, Plan::Reclaim { blocks, assignments_deleted: true, .. }) => {
                for block in (0..BLOCKS).filter(|block| blocks[*block]) {
                    self.clear_owner(block, false);
                }
                self.operators[operator] = Plan::Idle;
                true
            }
            (OperatorStep::RemoveFinalizer, Plan::Finalizer { block, current }) => {
                if current {
                    self.touch(block);
                    self.api.blocks[block].finalizer = false;
                }
                self.operators[operator] = Plan::Idle;
                true
            }
            _ => false,
        }
    }

    /// Lists the blocks and assignments of a deleted node. Leaves out each assignment that can't be decoded, and the block of that
    /// assignment.
    fn plan_reclaim(&mut self, operator: usize, node: usize) -> bool {
        if !self.grace_may_be_over(node) {
            return false;
        }
        let of_node = |address: usize| self.api.assignments[address].filter(|assignment| assignment.node == node);
        let mut assignments = [false; ADDRESSES];
        for (address, planned) in assignments.iter_mut().enumerate() {
            *planned = of_node(address).is_some_and(|assignment| assignment.readable);
        }
        let mut blocks = [false; BLOCKS];
        for (block, planned) in blocks.iter_mut().enumerate() {
            let kept = addresses_of(block)
                .any(|address| self.api.assignments[address].is_some_and(|assignment| !assignment.readable));
            *planned = !kept && self.api.blocks[block].owner.is_some_and(|owner| owner.node == node);
        }
        if !assignments.contains(&true) && !blocks.contains(&true) {
            return false;
        }
        self.operators[operator] = Plan::Reclaim { node, assignments, blocks, assignments_deleted: false };
        if !self.nodes[node].agent {
            self.nodes[node].long_absence = true;
        }
        true
    }
}
