//! Copies of parts of the index, so that tasks can make decisions without holding the index's lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Lenient, is_object_name};
use bobbin_crds::pool::{AcceptedSubnet, MAX_NODE_ADDRESSES};
use bobbin_crds::{AddressPool, name};
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::pool_shape::{PoolShape, ShapeError, accepted_subnets};
use bobbin_ipam::{BlockRange, SubnetPair, admits};
use kube::runtime::reflector::ObjectRef;

use super::block::BlockInfo;
use super::departure::NodeOwners;
use super::foreign_addresses::NodeAddress;
use super::index::Index;

/// A message names at most this many of the addresses that are reserved but assigned.
const MAX_NAMED_ADDRESSES: usize = 5;

/// A copy of one pool and its blocks, with the counts that decisions about the pool need.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolView {
    /// The pool. `None` if the pool does not exist or can't be decoded.
    pub(crate) pool: Option<AddressPool>,
    /// Whether the pool exists but can't be decoded.
    pub(crate) unreadable: bool,
    /// The blocks of the pool, in the order of their indices.
    pub(crate) blocks: Vec<BlockInfo>,
    /// How many addresses of the pool are assigned. Void assignments do not count.
    pub(crate) used: u64,
    /// How many released addresses of the pool are still cooling down.
    pub(crate) cooling: u64,
    /// The time until the next address of the pool has cooled down. `None` if no address is cooling down.
    pub(crate) next_cooled: Option<Duration>,
    /// The addresses of the pool that are reserved but assigned.
    pub(crate) reserved_in_use: ReservedInUse,
    /// The addresses of Nodes in the pool's subnets. The list has at most [`MAX_NODE_ADDRESSES`] + 1 entries. The
    /// additional entry shows that there are too many addresses, so that the pool is not ready.
    pub(crate) node_addresses: Vec<NodeAddress>,
    /// The Service ranges that overlap the pool's subnets.
    pub(crate) service_ranges: Vec<SubnetConflict>,
    /// How many nodes the cluster has.
    pub(crate) nodes: usize,
    /// The nodes that the pool's `nodeSelector` selects.
    pub(crate) selected: SelectedNodes,
    /// How many pools the cluster has.
    pub(crate) pools: usize,
}

/// The numbers of nodes that a pool's `nodeSelector` selects. A selected node is admitted if it is not out of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SelectedNodes {
    /// How many admitted nodes have no block of the pool.
    pub(crate) without_block: u64,
    /// How many admitted nodes have a block of the pool.
    pub(crate) with_block: u64,
    /// How many selected nodes are out of service.
    pub(crate) out_of_service: u64,
}

impl SelectedNodes {
    /// Whether the pool admits no node.
    pub(crate) fn admits_none(self) -> bool {
        self.without_block == 0 && self.with_block == 0
    }
}

/// The reserved addresses of a pool that are assigned. An address pair counts once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReservedInUse {
    /// The number of all reserved addresses that are assigned. Some may be reserved only because a Node has them.
    pub(crate) all: usize,
    /// The number of assigned addresses that are in `spec.reserved`.
    pub(crate) by_spec: usize,
    /// The assigned addresses that are in `spec.reserved`: only the first [`MAX_NAMED_ADDRESSES`].
    pub(crate) named: Vec<IpAddr>,
}

impl PoolView {
    /// The parsed pool, as if its status listed the entries `listed`. The addresses of Nodes count as reserved.
    pub(crate) fn shape(&self, pool: &AddressPool, listed: &[AcceptedSubnet]) -> Result<PoolShape, ShapeError> {
        let mut shape = PoolShape::with_listed(pool, listed)?;
        shape.reserve(self.node_addresses.iter().map(|node| node.address));
        Ok(shape)
    }
}

impl Index {
    /// Copies one pool and its blocks from the index.
    pub(crate) fn view(&mut self, name: &str) -> PoolView {
        let pool = self.pool(name).and_then(|pool| pool.readable().cloned());
        let assigned = self.assigned.get(name);
        let count = |index| assigned.and_then(|blocks| blocks.get(&index)).copied().unwrap_or(0);
        let unreadable = |range| self.unreadable_assignments_in(range);
        let void = |index| self.void.of_block(name, index);
        let blocks = self.blocks.get(name).into_iter().flat_map(BTreeMap::values);
        let blocks = blocks
            .map(|block| BlockInfo {
                assigned: count(block.index).saturating_add(unreadable(block.range)),
                void: void(block.index),
                ..block.clone()
            })
            .collect();
        let used = assigned.map_or(0, |blocks| blocks.values().map(|count| u64::from(*count)).sum());
        let used = used.saturating_sub(self.void.of_pool(name)) + self.unreadable_assignments_of(name);
        let subnets: Vec<SubnetPair> = pool.iter().flat_map(accepted_subnets).collect();
        let node_addresses = self.node_addresses_in(&subnets, MAX_NODE_ADDRESSES);
        let service_ranges = self.service_ranges_in(&subnets);
        let reserved_in_use = pool.as_ref().map(|pool| self.reserved_in_use(pool, &node_addresses)).unwrap_or_default();
        let cooldown = pool.as_ref().map_or(Duration::ZERO, |pool| pool.spec.cooldown());
        let released = self.released.get_mut(name);
        let (cooling, next_cooled) = released.map_or((0, None), |released| released.count(cooldown));
        let selected = pool.as_ref().map_or_else(SelectedNodes::default, |pool| self.selected(name, pool));
        PoolView {
            selected,
            pool,
            unreadable: self.is_unreadable(name),
            blocks,
            used,
            cooling,
            next_cooled,
            reserved_in_use,
            node_addresses,
            service_ranges,
            nodes: self.nodes.len(),
            pools: self.pools.len(),
        }
    }

    /// Counts the nodes that the pool's `nodeSelector` selects. A node that is out of service claims no block, so it
    /// has its own count.
    fn selected(&self, name: &str, pool: &AddressPool) -> SelectedNodes {
        let selector = pool.spec.node_selector.as_ref();
        let nothing = BTreeMap::new();
        let blocks = self.blocks.get(name).into_iter().flat_map(BTreeMap::values);
        let owners: HashSet<&str> = blocks.filter_map(|block| Some(&**block.owner.node()?)).collect();
        let mut selected = SelectedNodes::default();
        for node in self.nodes.state() {
            if !admits(selector, node.metadata.labels.as_ref().unwrap_or(&nothing)) {
                continue;
            }
            if node.out_of_service() {
                selected.out_of_service += 1;
                continue;
            }
            let is_owner = node.metadata.name.as_deref().is_some_and(|name| owners.contains(name));
            *if is_owner { &mut selected.with_block } else { &mut selected.without_block } += 1;
        }
        selected
    }

    /// Returns those of the given addresses that are assigned, either alone or as one address of a pair.
    pub(super) fn assigned_among(&self, addresses: &[IpAddr]) -> HashSet<IpAddr> {
        // The key of an assignment with an IPv4 address is that IPv4 address. So the keys do not contain the IPv6
        // address of a pair.
        let mut assigned: HashSet<IpAddr> =
            addresses.iter().filter(|address| self.assignments.contains_key(address)).copied().collect();
        if addresses.iter().any(IpAddr::is_ipv6) {
            let paired = self.assignments.values().filter_map(|info| info.ipv6.map(IpAddr::V6));
            assigned.extend(paired.filter(|address| addresses.contains(address)));
        }
        assigned
    }

    fn reserved_in_use(&self, pool: &AddressPool, nodes: &[NodeAddress]) -> ReservedInUse {
        let mut found = ReservedInUse::default();
        let Some(name) = pool.metadata.name.as_deref() else { return found };
        let (Some(assigned), Ok(mut shape)) = (self.assigned.get(name), PoolShape::read(pool)) else {
            return found;
        };
        let by_spec = shape.reserved.clone();
        shape.reserve(nodes.iter().map(|node| node.address));
        for range in assigned.keys().filter_map(|index| shape.layout.block(*index)) {
            if shape.reserved.count_in(&range.as_subnet()) == 0 {
                continue;
            }
            for pair in (0..range.len()).filter_map(|offset| range.pair(offset)) {
                let Some(address) = pair.addresses().next() else { continue };
                if !shape.reserved.covers(&pair) || !self.assignments.contains_key(&address) {
                    continue;
                }
                found.all += 1;
                if by_spec.covers(&pair) {
                    found.by_spec += 1;
                    if found.named.len() < MAX_NAMED_ADDRESSES {
                        found.named.push(address);
                    }
                }
            }
        }
        found
    }

    /// The pool with this name.
    pub(super) fn pool(&self, name: &str) -> Option<Arc<Lenient<AddressPool>>> {
        self.pools.get(&ObjectRef::new(name))
    }

    /// All pools, including unreadable pools.
    pub(crate) fn pools(&self) -> Vec<Arc<Lenient<AddressPool>>> {
        self.pools.state()
    }

    /// The names of all pools that need a reconciler: existing pools, and deleted pools that still have blocks.
    pub(crate) fn reconciled_pools(&self) -> HashSet<Arc<str>> {
        let pools = self.pools.state();
        pools.iter().map(|pool| Arc::from(pool.name())).chain(self.blocks.keys().cloned()).collect()
    }

    /// The UID of a Node.
    pub(crate) fn node_uid(&self, name: &str) -> Option<String> {
        self.nodes.get(&ObjectRef::new(name)).and_then(|node| node.metadata.uid.clone())
    }

    /// Whether a Node with this name exists.
    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.get(&ObjectRef::new(name)).is_some()
    }

    /// The nodes that use a pool, each with its number of addresses of the pool. The node with the most addresses comes
    /// first. For a node that has only empty blocks, the number is 0.
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

    /// The nodes that own a block or an assignment.
    pub(crate) fn owners(&self) -> NodeOwners {
        let blocks = self.blocks.values().flat_map(BTreeMap::values).filter_map(|block| block.owner.node());
        let mut owners: HashSet<&Arc<str>> = blocks.chain(self.assignments.values().map(|info| &info.node)).collect();
        // A `nodeName` that no Node can have is an error of the object, and not a deleted node. In a field selector, such a
        // name could also select the objects of another node. So the operator keeps the object.
        owners.retain(|owner| is_object_name(owner));
        let departure = |owner: &Arc<str>| self.departures.get(owner).copied().unwrap_or_default();
        NodeOwners {
            count: owners.len(),
            deleted: owners
                .into_iter()
                .filter(|owner| !self.has_node(owner))
                .map(|owner| (Arc::clone(owner), departure(owner)))
                .collect(),
        }
    }

    /// The name and the range of each block of the pools other than `pool`.
    pub(crate) fn blocks_of_other_pools(&self, pool: &str) -> Vec<(String, BlockRange)> {
        let others = self.blocks.iter().filter(|(name, _)| &***name != pool);
        let blocks = others.flat_map(|(pool, blocks)| blocks.values().map(move |block| (pool, block)));
        blocks.filter_map(|(pool, block)| Some((name::block(pool, block.index), block.range?))).collect()
    }

    /// Forgets names that no object uses, deleted nodes that own nothing, and released addresses of deleted pools.
    pub(crate) fn tidy(&mut self) {
        let deleted = self.owners().deleted;
        self.departures.retain(|name, _| deleted.contains_key(name));
        self.forget_released();
        // The set `names` itself holds one reference to each name. So no object uses a name that has only one reference.
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    pub(super) fn forget_released(&mut self) {
        let pools = &self.pools;
        self.released.retain(|name, _| pools.get(&ObjectRef::new(name)).is_some());
    }
}
