//! Copies of parts of the index, for decisions that are made without its lock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::Lenient;
use bobbin_crds::AddressPool;
use bobbin_ipam::BlockRange;
use bobbin_ipam::overlap::SubnetConflict;
use kube::runtime::reflector::ObjectRef;

use super::block::BlockInfo;
use super::index::Index;
use super::objects::node_conflicts;

/// A pool and its blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolView {
    /// `None`: the pool does not exist, or can't be decoded.
    pub(crate) pool: Option<AddressPool>,
    /// The pool exists and can't be decoded.
    pub(crate) unreadable: bool,
    /// In the order of their indices.
    pub(crate) blocks: Vec<BlockInfo>,
    /// How many addresses are assigned.
    pub(crate) used: u64,
    /// How many released addresses still cool down.
    pub(crate) cooling: u64,
    /// The time until the next of them has cooled down.
    pub(crate) next_cooled: Option<Duration>,
    /// How many nodes the cluster has.
    pub(crate) nodes: usize,
    /// How many pools the cluster has.
    pub(crate) pools: usize,
}

impl Index {
    /// A copy of one pool and its blocks.
    pub(crate) fn view(&mut self, name: &str) -> PoolView {
        let pool = self.pool(name).and_then(|pool| pool.readable().cloned());
        let assigned = self.assigned.get(name);
        let count = |index| assigned.and_then(|blocks| blocks.get(&index)).copied().unwrap_or(0);
        let unreadable = |range| self.unreadable_assignments_in(range);
        let blocks = self.blocks.get(name).into_iter().flat_map(BTreeMap::values);
        let blocks = blocks
            .map(|block| BlockInfo {
                assigned: count(block.index).saturating_add(unreadable(block.range)),
                ..block.clone()
            })
            .collect();
        let used = assigned.map_or(0, |blocks| blocks.values().map(|count| u64::from(*count)).sum());
        let used = used + self.unreadable_assignments_of(name);
        let cooldown = pool.as_ref().map_or(Duration::ZERO, |pool| pool.spec.cooldown());
        let released = self.released.get_mut(name);
        let (cooling, next_cooled) = released.map_or((0, None), |released| cooling(released, cooldown));
        PoolView {
            pool,
            unreadable: self.is_unreadable(name),
            blocks,
            used,
            cooling,
            next_cooled,
            nodes: self.nodes.len(),
            pools: self.pools.len(),
        }
    }

    /// The pool of that name.
    pub(super) fn pool(&self, name: &str) -> Option<Arc<Lenient<AddressPool>>> {
        self.pools.get(&ObjectRef::new(name))
    }

    /// All pools, also unreadable ones.
    pub(crate) fn pools(&self) -> Vec<Arc<Lenient<AddressPool>>> {
        self.pools.state()
    }

    /// Names of all pools that need a reconciler: those that exist, and those that have blocks left.
    pub(crate) fn reconciled_pools(&self) -> HashSet<Arc<str>> {
        let pools = self.pools.state();
        pools.iter().map(|pool| Arc::from(pool.name())).chain(self.blocks.keys().cloned()).collect()
    }

    /// Whether a node exists.
    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.get(&ObjectRef::new(name)).is_some()
    }

    /// The addresses of all nodes: no pool may contain one.
    pub(crate) fn node_addresses(&self) -> Vec<SubnetConflict> {
        self.nodes.state().iter().flat_map(|node| node_conflicts(node)).collect()
    }

    /// How many addresses of a pool each node uses, most first. A node with only an empty block counts with 0.
    pub(crate) fn pool_users(&self, pool: &str) -> Vec<(Arc<str>, u64)> {
        let mut users: HashMap<&Arc<str>, u64> = HashMap::new();
        for block in self.blocks.get(pool).into_iter().flat_map(BTreeMap::values) {
            if let Some(node) = block.owner.node() {
                users.entry(node).or_default();
            }
        }
        for info in self.assignments.values().filter(|info| &*info.pool == pool) {
            *users.entry(&info.node).or_default() += 1;
        }
        let mut users: Vec<_> = users.into_iter().map(|(node, count)| (Arc::clone(node), count)).collect();
        users.sort_by(|(a, count_a), (b, count_b)| count_b.cmp(count_a).then_with(|| a.cmp(b)));
        users
    }

    /// The nodes that own a block or an assignment but are deleted, and whether each Node was out of service.
    pub(crate) fn deleted_owners(&self) -> HashMap<Arc<str>, bool> {
        let blocks = self.blocks.values().flat_map(BTreeMap::values).filter_map(|block| block.owner.node());
        let owners: HashSet<&Arc<str>> = blocks.chain(self.assignments.values().map(|info| &info.node)).collect();
        owners
            .into_iter()
            .filter(|owner| !self.has_node(owner))
            .map(|owner| (Arc::clone(owner), self.deleted_out_of_service.contains(owner)))
            .collect()
    }

    /// Names and ranges of the blocks of all other pools.
    pub(crate) fn blocks_of_other_pools(&self, pool: &str) -> Vec<(String, BlockRange)> {
        let others = self.blocks.iter().filter(|(name, _)| &***name != pool);
        let blocks = others.flat_map(|(name, blocks)| blocks.values().map(move |block| (name, block)));
        blocks.filter_map(|(name, block)| Some((format!("{name}-{}", block.index), block.range?))).collect()
    }

    /// Drops unused names, and what is known of nodes and pools that are gone and own nothing.
    pub(crate) fn tidy(&mut self) {
        let owners = self.deleted_owners();
        self.deleted_out_of_service.retain(|name| owners.contains_key(name));
        self.forget_released();
        // The set itself holds one reference, so a name with one reference is unused.
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    pub(super) fn forget_released(&mut self) {
        let pools = &self.pools;
        self.released.retain(|name, _| pools.get(&ObjectRef::new(name)).is_some());
    }
}

/// How many of the released addresses still cool down, and how long until the next has cooled down.
fn cooling(released: &mut VecDeque<(Instant, u32)>, cooldown: Duration) -> (u64, Option<Duration>) {
    while released.front().is_some_and(|(when, _)| when.elapsed() >= cooldown) {
        released.pop_front();
    }
    let count = released.iter().map(|(_, count)| u64::from(*count)).sum();
    (count, released.front().map(|(when, _)| cooldown.saturating_sub(when.elapsed())))
}
