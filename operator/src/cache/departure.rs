//! Whether the deletion of a Node was expected, and what nodes own. Pure.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use bobbin_api_client::{PartialNode, list_names};

use super::index::Index;

/// A message names at most this many pools.
const MAX_NAMED_POOLS: usize = 5;

/// Whether the deletion of a Node was expected, according to the watch. A Node's last state before the deletion and its
/// state in the deletion event may lead to two different variants. In that case, the later one in this list counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Departure {
    /// The watch has not shown the Node, because it was deleted before this operator started.
    #[default]
    Unknown,
    /// Nothing announced the deletion of the Node.
    Unexpected,
    /// The Node was cordoned or shut down, or an autoscaler was about to delete it.
    Expected,
    /// The Node had the out-of-service taint: its machine is off.
    OutOfService,
}

impl Departure {
    /// The departure of a Node whose last known state is `node`.
    pub(crate) fn of(node: &PartialNode) -> Self {
        match (node.out_of_service(), node.removal_expected()) {
            (true, _) => Self::OutOfService,
            (false, true) => Self::Expected,
            (false, false) => Self::Unexpected,
        }
    }
}

/// The nodes that own blocks or assignments.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeOwners {
    /// How many nodes own something. The number includes deleted nodes.
    pub(crate) count: usize,
    /// The deleted nodes that own something.
    pub(crate) deleted: HashMap<Arc<str>, Departure>,
}

/// What nodes own: the numbers of blocks and addresses, and the pools of these blocks and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) blocks: u64,
    pub(crate) addresses: u64,
    pub(crate) pools: BTreeSet<Arc<str>>,
}

impl Holdings {
    pub(crate) fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.addresses += other.addresses;
        self.pools.extend(other.pools.iter().cloned());
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools = list_names(self.pools.iter().take(MAX_NAMED_POOLS), self.pools.len());
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(f, "{} block{} and {} address", self.blocks, plural(self.blocks), self.addresses)?;
        write!(f, "{} of pool{} {pools}", if self.addresses == 1 { "" } else { "es" }, plural(self.pools.len() as u64))
    }
}

impl Index {
    /// What each of these nodes owns.
    pub(crate) fn holdings(&self, nodes: &BTreeSet<Arc<str>>) -> HashMap<Arc<str>, Holdings> {
        let mut all: HashMap<Arc<str>, Holdings> = HashMap::new();
        for (pool, blocks) in &self.blocks {
            for node in blocks.values().filter_map(|block| block.owner.node()).filter(|node| nodes.contains(*node)) {
                let held = all.entry(Arc::clone(node)).or_default();
                held.blocks += 1;
                held.pools.insert(Arc::clone(pool));
            }
        }
        for info in self.assignments.values().filter(|info| nodes.contains(&info.node)) {
            let held = all.entry(Arc::clone(&info.node)).or_default();
            held.addresses += 1;
            held.pools.insert(Arc::clone(&info.pool));
        }
        all
    }
}
