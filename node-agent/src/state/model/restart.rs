//! Restarts a simulated node's agent from its checkpoint.

use super::*;

impl World {
    pub(super) fn restart(&mut self, node: usize, trusted: bool) {
        // The checkpoint may lack transitions that allow fewer allocations, because the agent applies such a transition before it saves the
        // transition.
        let fresh = NodeState::new();
        for saved in self.nodes[node].checkpoint.clone() {
            let proof = saved.proof();
            if let Some((state, since)) = saved.restored(trusted, at(0)) {
                let reserved = Reserved::default();
                let new = NewBlock {
                    held: saved.block,
                    cooling_since: None,
                    reserved,
                    proof,
                    now: at(0),
                    not_before: at(0),
                    was_used: false,
                };
                fresh.restore_block(new, state, since);
            }
        }
        for (container, pair) in &self.nodes[node].pods {
            fresh.restore_attachment(attachment(*container, *pair));
        }
        self.nodes[node].agent = fresh;
        // This loop simulates the agent's first read of the node's blocks, which comes before any ADD.
        let known: Vec<String> = self.nodes[node].agent.blocks().into_iter().map(|block| block.held.name).collect();
        for block in 0..BLOCKS {
            let ours = self.was_recreated(node, block);
            if known.contains(&name(block)) && !self.owns(node, block) {
                self.nodes[node].agent.on(&name(block), BlockEvent::Doubt);
            } else if ours && !known.contains(&name(block)) {
                self.api.blocks.get_mut(&block).unwrap().owner = Some((node, self.nodes[node].uid));
                self.add_block(node, block, Proof::AssignmentsUnseen);
            }
        }
        self.save(node, &[]);
    }
}
