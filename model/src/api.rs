//! The effects of writes at the API server. These functions also detect a write that breaks a rule.

use crate::world::{Assignment, BLOCKS, Late, Owner, Plan, Rule, World, Write, block_of};

impl World {
    /// Records that the block's resourceVersion changed, so earlier reads of the block are out of date.
    pub(crate) fn touch(&mut self, block: usize) {
        for plan in &mut self.operators {
            match plan {
                Plan::Reclaim { blocks, .. } => blocks[block] = false,
                Plan::Finalizer { block: planned, current } if *planned == block => *current = false,
                Plan::Idle | Plan::Finalizer { .. } => {}
            }
        }
        for node in &mut self.nodes {
            if node.late == Some(Late::Release(block)) {
                node.late = None;
            }
            if let Some(read) = &mut node.read
                && read.block == block
            {
                read.current = false;
            }
        }
    }

    /// Makes the node the owner of a block. The written UID is the one that the node's agent knows.
    pub(crate) fn write_owner(&mut self, node: usize, block: usize) {
        self.touch(block);
        self.api.blocks[block].owner = Some(Owner { node, uid: self.nodes[node].uid });
        self.api.blocks[block].finalizer = true;
    }

    /// Clears the owner of a block. `by_agent` says whether the owner's agent sent the write.
    pub(crate) fn clear_owner(&mut self, block: usize, by_agent: bool) {
        if let Some(Owner { node, .. }) = self.api.blocks[block].owner {
            if self.pods.iter().any(|pod| pod.living() && pod.node == node && block_of(pod.address) == block) {
                self.breaks(Rule::Freed);
            }
            // A restore may bring back an assignment whose deletion was confirmed. Such an assignment breaks no rule, because no other pod
            // can get its address.
            let brought_back =
                |assignment: &Assignment| self.restored && self.pods[assignment.pod].assignment == Write::None;
            let left = |assignment: &Assignment| assignment.node == node && !brought_back(assignment);
            let assignments = crate::world::addresses_of(block)
                .any(|address| self.api.assignments[address].as_ref().is_some_and(left));
            if assignments || (by_agent && self.nodes[node].routes[block]) {
                self.breaks(Rule::Order);
            }
        }
        self.touch(block);
        self.api.blocks[block].owner = None;
    }

    /// Creates an assignment for the pod if the pod's address has none. Returns whether the assignment of that address belongs to the pod.
    pub(crate) fn create_assignment(&mut self, pod: usize) -> bool {
        let Assignment { pod: holder, .. } = *self.api.assignments[self.pods[pod].address].get_or_insert(Assignment {
            pod,
            node: self.pods[pod].node,
            readable: true,
        });
        holder == pod
    }

    /// Deletes the assignment of an address.
    pub(crate) fn delete_assignment(&mut self, address: usize) {
        if let Some(assignment) = self.api.assignments[address].take()
            && self.pods[assignment.pod].living()
            && self.pods[assignment.pod].address == address
        {
            self.breaks(Rule::Freed);
        }
        for plan in &mut self.operators {
            if let Plan::Reclaim { assignments, .. } = plan {
                assignments[address] = false;
            }
        }
    }

    /// Replaces all objects by the objects of the snapshot. All writes in flight are lost, because the API server is down during a restore.
    pub(crate) fn restore(&mut self) {
        if let Some(snapshot) = self.snapshot {
            self.api = snapshot;
        }
        (0..BLOCKS).for_each(|block| self.touch(block));
        self.operators.fill(Plan::Idle);
        self.restored = true;
        for node in &mut self.nodes {
            node.late = None;
            node.missed_restore = true;
            node.assignments_compared = false;
            node.blocks_compared = false;
        }
    }
}
