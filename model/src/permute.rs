//! All nodes are alike, and so are all blocks. So states that differ only in the numbering of nodes and blocks are
//! equivalent. Of several equivalent states, the model continues only from the state with the smallest hash.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::world::{ADDRESSES, ADDRESSES_PER_BLOCK, Late, NODES, Plan, World};

impl World {
    /// Returns the state that represents this state and all states that differ from it only in the numbering of nodes and blocks.
    pub(crate) fn representative(self) -> World {
        let nodes_swapped = self.swap_nodes();
        let all = [self, nodes_swapped, self.swap_blocks(), nodes_swapped.swap_blocks()];
        all.into_iter().min_by_key(hash).unwrap_or(self)
    }

    fn swap_nodes(mut self) -> World {
        self.nodes.swap(0, 1);
        for api in std::iter::once(&mut self.api).chain(&mut self.snapshot) {
            api.nodes.swap(0, 1);
            for owner in api.blocks.iter_mut().filter_map(|block| block.owner.as_mut()) {
                owner.node = other_node(owner.node);
            }
            for assignment in api.assignments.iter_mut().flatten() {
                assignment.node = other_node(assignment.node);
            }
        }
        for pod in self.pods.iter_mut().filter(|pod| !pod.is_idle()) {
            pod.node = other_node(pod.node);
        }
        for plan in &mut self.operators {
            if let Plan::Reclaim { node, .. } = plan {
                *node = other_node(*node);
            }
        }
        self.operators.sort();
        self
    }

    fn swap_blocks(mut self) -> World {
        for api in std::iter::once(&mut self.api).chain(&mut self.snapshot) {
            api.blocks.swap(0, 1);
            api.assignments.rotate_left(ADDRESSES_PER_BLOCK);
        }
        for node in &mut self.nodes {
            node.blocks.swap(0, 1);
            node.routes.swap(0, 1);
            node.saved.swap(0, 1);
            node.excluded.rotate_left(ADDRESSES_PER_BLOCK);
            if let Some(read) = &mut node.read {
                read.block = 1 - read.block;
            }
            if let Some(Late::Claim(block) | Late::Release(block)) = &mut node.late {
                *block = 1 - *block;
            }
        }
        for pod in self.pods.iter_mut().filter(|pod| !pod.is_idle()) {
            pod.address = (pod.address + ADDRESSES_PER_BLOCK) % ADDRESSES;
        }
        for plan in &mut self.operators {
            match plan {
                Plan::Reclaim { assignments, blocks, .. } => {
                    assignments.rotate_left(ADDRESSES_PER_BLOCK);
                    blocks.swap(0, 1);
                }
                Plan::Finalizer { block, .. } => *block = 1 - *block,
                Plan::Idle => {}
            }
        }
        self.operators.sort();
        self
    }
}

fn other_node(node: usize) -> usize {
    NODES - 1 - node
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}
