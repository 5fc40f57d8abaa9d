//! Checks the rules that must hold after each step, or at the end of a test run.

use super::*;

impl World {
    /// Completes all unanswered claims and assignments, and resolves all doubts.
    pub(super) fn settle(&mut self) {
        for _ in 0..3 {
            for node in 0..NODES {
                self.create_missing_assignments(node);
                self.read_back_claims(node);
                self.nodes[node].agent.doubt_all();
                self.resolve_doubts(node);
                self.serve(node);
                let pods = self.nodes[node].pods.keys().copied().collect();
                self.nodes[node].unanswered = pods;
                self.answer_assignments(node);
            }
        }
    }

    pub(super) fn check_no_duplicate(&self) {
        let mut seen = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for (container, pair) in &node.pods {
                if let Some(other) = seen.insert(*pair, (number, *container)) {
                    panic!(
                        "two attachments use {pair}: (node, container) {other:?}, and container {container} of n{number}"
                    );
                }
            }
        }
    }

    /// Checks that at least one node reports each duplicate that an administrator caused. A node reports a duplicate if the node lost the
    /// block or found another node's assignment of the address.
    pub(super) fn check_duplicates_are_reported(&self) {
        let mut holders: BTreeMap<IpPair, Vec<usize>> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            node.pods.values().for_each(|pair| holders.entry(*pair).or_default().push(number));
        }
        for (pair, nodes) in holders.into_iter().filter(|(_, nodes)| nodes.len() > 1) {
            let block = name(block_of(pair));
            let lost = |node: &usize| self.nodes[*node].agent.block_state(&block) == Some(BlockState::Lost);
            let reported = |node: &usize| lost(node) || self.nodes[*node].reported.contains(&pair);
            assert!(nodes.iter().any(reported), "{pair} is in use on the nodes {nodes:?}, and no node reports it");
        }
    }

    pub(super) fn check_checkpoint(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for saved in node.checkpoint.iter().filter(|saved| saved.state == BlockState::Serving) {
                let block = (0..BLOCKS).find(|block| name(*block) == saved.block.name).unwrap();
                assert!(
                    self.was_recreated(number, block),
                    "the checkpoint of n{number} has a block in service that another node owns"
                );
            }
        }
    }
}
