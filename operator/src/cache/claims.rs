//! Finds the nodes that own more blocks of a pool than the pool allows them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bobbin_crds::AddressPool;
use bobbin_ipam::pool_selection::selector::parse_selector;
use kube::core::SelectorExt;
use kube::runtime::reflector::ObjectRef;

use super::block::BlockInfo;
use super::index::Index;

/// A node that may claim no further block of a pool, and the node's blocks of that pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimsBeyond {
    pub(crate) node: Arc<str>,
    pub(crate) pool: Arc<str>,
    /// The indices of the node's blocks.
    pub(crate) blocks: BTreeSet<u64>,
    /// Why the node may claim no further block, as the end of a sentence.
    pub(crate) why: String,
}

impl Index {
    /// All nodes that have too many blocks of a pool, or blocks of a pool that does not admit them. In a pool without
    /// `maxBlocksPerNode`, the blocks of one node may together have at most `max_addresses` addresses.
    pub(crate) fn claims_beyond(&self, max_addresses: u32) -> Vec<ClaimsBeyond> {
        let mut beyond = Vec::new();
        for (pool, blocks) in &self.blocks {
            let Some(known) = self.pool(pool) else { continue };
            let Some(known) = known.readable() else { continue };
            let max = known.spec.max_blocks(max_addresses) as usize;
            for (node, count) in owners(blocks) {
                let why = if count > max {
                    format!("a node may have at most {max} blocks of the pool")
                } else if self.is_admitted(known, node) {
                    continue;
                } else {
                    "the pool's nodeSelector does not admit the node".to_owned()
                };
                let own = blocks.iter().filter(|(_, block)| block.owner.node() == Some(node)).map(|(index, _)| *index);
                let (node, pool) = (Arc::clone(node), Arc::clone(pool));
                beyond.push(ClaimsBeyond { node, pool, blocks: own.collect(), why });
            }
        }
        beyond
    }

    /// How many blocks of a pool a node has.
    pub(crate) fn block_count(&self, pool: &str, node: &str) -> usize {
        let blocks = self.blocks.get(pool).into_iter().flat_map(BTreeMap::values);
        blocks.filter(|block| block.owner.node().is_some_and(|owner| **owner == *node)).count()
    }

    /// Whether the pool's `nodeSelector` admits the node. A node counts as admitted if the selector is invalid or the watch
    /// has not shown the node.
    fn is_admitted(&self, pool: &AddressPool, node: &str) -> bool {
        let Some(selector) = &pool.spec.node_selector else { return true };
        let (Ok(selector), Some(node)) = (parse_selector(selector), self.nodes.get(&ObjectRef::new(node))) else {
            return true;
        };
        selector.matches(node.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
    }
}

/// The nodes that have blocks, each with the number of its blocks.
fn owners(blocks: &BTreeMap<u64, BlockInfo>) -> HashMap<&Arc<str>, usize> {
    let mut owners = HashMap::new();
    for node in blocks.values().filter_map(|block| block.owner.node()) {
        *owners.entry(node).or_default() += 1;
    }
    owners
}
