//! The steps of the operator and of administrators, which change blocks and nodes.

use super::*;

impl World {
    pub(super) fn remove_finalizer(&mut self, block: usize) {
        let assigned = self.api.assignments.keys().any(|pair| block_of(*pair) == block);
        if let Some(stored) = self.api.blocks.get_mut(&block).filter(|stored| stored.owner.is_none() && !assigned) {
            stored.finalizer = false;
        }
    }

    pub(super) fn delete_node(&mut self, node: usize) {
        // The node's machine is off, so no pod runs on the node. When the node's agent starts again, it has no checkpoint.
        let uid = self.nodes[node].uid + 1;
        self.api.assignments.retain(|_, (owner, _)| *owner != node);
        for stored in
            self.api.blocks.values_mut().filter(|stored| matches!(stored.owner, Some((owner, _)) if owner == node))
        {
            *stored = Stored::default();
        }
        self.nodes[node] = Node {
            agent: NodeState::new(),
            checkpoint: Vec::new(),
            uid,
            pods: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            reported: BTreeSet::new(),
        };
    }

    pub(super) fn carve_again(&mut self) {
        for block in 0..BLOCKS {
            let missing = self.api.blocks[&block].deleted;
            let assigned: BTreeSet<usize> = self
                .api
                .assignments
                .iter()
                .filter(|(pair, _)| block_of(**pair) == block)
                .map(|(_, (node, _))| *node)
                .collect();
            // If one node has assignments in the block, the operator creates the block for that node. If several nodes have assignments in
            // the block, the operator does not create the block.
            let owner = assigned.iter().next().map(|node| (*node, self.nodes[*node].uid));
            if missing && assigned.len() < 2 {
                let finalizer = owner.is_some();
                *self.api.blocks.get_mut(&block).unwrap() = Stored { owner, finalizer, deleted: false };
            }
        }
    }
}
