//! The index of all watched objects: stores of pools and nodes, and interned maps of blocks and assignments.
//!
//! A cluster has too many assignments for kube's `Store`, so the index keeps only a few fields of each assignment.

mod cooling;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::{AddressBlock, AddressPool, name};
use kube::api::ObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;

use super::block::{BlockInfo, block_index, block_key};
use super::departure::Departure;
use super::foreign_addresses::ForeignAddresses;
use super::objects::PartialAssignment;
use super::suspects::assignment_name;
use super::unreadable::address_of;
use super::void::VoidMarks;
use cooling::Cooling;

/// All watched objects, with only the fields that the operator uses.
pub(crate) struct Index {
    pub(super) pools: Store<Lenient<AddressPool>>,
    pool_writer: Writer<Lenient<AddressPool>>,
    /// The name, UID, labels, taints and addresses of each node. If a node becomes unreadable, the index keeps its last known UID,
    /// labels and addresses.
    pub(super) nodes: Store<PartialNode>,
    node_writer: Writer<PartialNode>,
    /// The deleted nodes that the watch has shown, each with its departure.
    pub(super) departures: HashMap<Arc<str>, Departure>,
    /// The addresses of Nodes and Services.
    pub(super) foreign: ForeignAddresses,
    /// All blocks, by the pool's name and the block's index.
    pub(super) blocks: HashMap<Arc<str>, BTreeMap<u64, BlockInfo>>,
    pub(super) assignments: HashMap<IpAddr, AssignmentInfo>,
    /// For each block, how many assignments name it, by pool and index. The map also has an entry for a block that does not
    /// exist, if an assignment names it.
    pub(super) assigned: HashMap<Arc<str>, BTreeMap<u64, u32>>,
    /// The assignments that [`Index::set_void`] marked as void.
    pub(super) void: VoidMarks,
    /// The unreadable assignments by name, each with the address in its name. `None` means that the name is not an address.
    pub(super) unreadable_assignments: HashMap<Box<str>, Option<IpAddr>>,
    /// For each pool, the released addresses that cool down.
    pub(super) released: HashMap<Arc<str>, Cooling>,
    /// The names of pools and nodes, each stored once in memory.
    pub(super) names: HashSet<Arc<str>>,
    listed_blocks: HashSet<String>,
    listed_assignments: HashSet<String>,
}

/// The fields of an assignment that the index stores.
#[derive(Clone, Debug)]
pub(super) struct AssignmentInfo {
    pub(super) pool: Arc<str>,
    /// The index of the block that the assignment names; `u64::MAX` if the block's name does not belong to the pool.
    pub(super) block: u64,
    pub(super) node: Arc<str>,
    pub(super) ipv6: Option<Ipv6Addr>,
}

/// The changes that a watch event made to the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The names of the pools that changed, or whose blocks or assignments changed.
    pub(crate) pools: Vec<Arc<str>>,
    /// Whether a pool was created or deleted, or a pool got its first block or lost its last block.
    pub(crate) pool_set: bool,
    /// Whether a node changed, or a block or an assignment of a node changed.
    pub(crate) nodes: bool,
}

impl Default for Index {
    fn default() -> Self {
        let ((pools, pool_writer), (nodes, node_writer)) = (reflector::store(), reflector::store());
        Self {
            pools,
            pool_writer,
            nodes,
            node_writer,
            departures: HashMap::default(),
            foreign: ForeignAddresses::default(),
            blocks: HashMap::default(),
            assignments: HashMap::default(),
            assigned: HashMap::default(),
            void: VoidMarks::default(),
            unreadable_assignments: HashMap::default(),
            released: HashMap::default(),
            names: HashSet::default(),
            listed_blocks: HashSet::default(),
            listed_assignments: HashSet::default(),
        }
    }
}

impl Index {
    pub(crate) fn pool_event(&mut self, event: &Event<Lenient<AddressPool>>) -> Changes {
        let known = match event {
            Event::Apply(pool) | Event::Delete(pool) => self.pool(pool.name()).is_some(),
            Event::Init | Event::InitApply(_) | Event::InitDone => false,
        };
        self.pool_writer.apply_watcher_event(event);
        match event {
            Event::Apply(pool) => {
                Changes { pools: vec![self.intern(pool.name())], pool_set: !known, ..Changes::default() }
            }
            Event::Delete(pool) => {
                self.released.remove(pool.name());
                Changes { pools: vec![self.intern(pool.name())], pool_set: known, ..Changes::default() }
            }
            Event::InitDone => {
                self.forget_released();
                Changes::default()
            }
            Event::Init | Event::InitApply(_) => Changes::default(),
        }
    }

    pub(crate) fn node_event(&mut self, event: &Event<Lenient<PartialNode>>) -> Changes {
        match event {
            Event::Init => self.node_writer.apply_watcher_event(&Event::Init),
            Event::InitApply(node) => {
                let node = self.stored_node(node);
                self.node_writer.apply_watcher_event(&Event::InitApply(node));
            }
            Event::InitDone => {
                let before = self.nodes.state();
                self.node_writer.apply_watcher_event(&Event::InitDone);
                self.foreign.set_nodes(&self.nodes.state(), Instant::now());
                for node in &before {
                    self.note_deleted(node);
                }
                let nodes = &self.nodes;
                self.departures.retain(|name, _| nodes.get(&ObjectRef::new(name)).is_none());
            }
            Event::Apply(node) => {
                self.departures.remove(node.name());
                let known = self.nodes.get(&ObjectRef::new(node.name()));
                let node = self.stored_node(node);
                let has_moved =
                    known.as_ref().is_none_or(|known| known.reserved_addresses() != node.reserved_addresses());
                // A change of the node's labels may change which pools admit the node.
                let is_relabelled = known.is_none_or(|known| known.metadata.labels != node.metadata.labels);
                self.node_writer.apply_watcher_event(&Event::Apply(node));
                let pools = if has_moved || is_relabelled { self.all_pools() } else { Vec::new() };
                if has_moved {
                    self.foreign.set_nodes(&self.nodes.state(), Instant::now());
                }
                return Changes { pools, pool_set: false, nodes: true };
            }
            Event::Delete(node) => {
                let Some(last) = self.nodes.get(&ObjectRef::new(node.name())) else { return Changes::default() };
                let deleted = self.stored_node(node);
                self.node_writer.apply_watcher_event(&Event::Delete(deleted.clone()));
                self.note_deleted(&last);
                self.note_deleted(&deleted);
                self.foreign.set_nodes(&self.nodes.state(), Instant::now());
                return Changes { pools: self.all_pools(), pool_set: false, nodes: true };
            }
        }
        Changes::default()
    }

    pub(crate) fn block_event(&mut self, event: &Event<Lenient<AddressBlock>>) -> Changes {
        match event {
            Event::Init => self.listed_blocks.clear(),
            Event::InitApply(block) => {
                self.listed_blocks.insert(block.name().to_owned());
                return self.apply_block(block);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_blocks);
                for name in self.block_names().into_iter().filter(|name| !listed.contains(name)) {
                    self.remove_block(&name);
                }
            }
            Event::Apply(block) => return self.apply_block(block),
            Event::Delete(block) => return self.remove_block(block.name()),
        }
        Changes::default()
    }

    pub(crate) fn assignment_event(&mut self, event: &Event<Lenient<PartialAssignment>>) -> Changes {
        match event {
            Event::Init => self.listed_assignments.clear(),
            Event::InitApply(assignment) => {
                self.listed_assignments.insert(assignment.name().to_owned());
                return self.apply_assignment(assignment);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_assignments);
                for name in self.assignment_names().into_iter().filter(|name| !listed.contains(name)) {
                    self.remove_assignment(&name);
                }
            }
            Event::Apply(assignment) => return self.apply_assignment(assignment),
            Event::Delete(assignment) => return self.remove_assignment(assignment.name()),
        }
        Changes::default()
    }

    /// Copies only the fields of a node that the index stores.
    fn stored_node(&self, node: &Lenient<PartialNode>) -> PartialNode {
        let name = node.name();
        let mut stored = PartialNode {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..PartialNode::default()
        };
        match node.readable() {
            Some(node) => {
                stored.metadata.uid.clone_from(&node.metadata.uid);
                stored.metadata.labels.clone_from(&node.metadata.labels);
                stored.spec.clone_from(&node.spec);
                stored.status.addresses.clone_from(&node.status.addresses);
            }
            None => {
                if let Some(last) = self.nodes.get(&ObjectRef::new(name)) {
                    stored.metadata.uid.clone_from(&last.metadata.uid);
                    stored.metadata.labels.clone_from(&last.metadata.labels);
                    stored.status.addresses.clone_from(&last.status.addresses);
                }
            }
        }
        stored
    }

    /// Remembers the departure of a deleted node. Does nothing if the node still exists.
    fn note_deleted(&mut self, node: &PartialNode) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if !self.has_node(name) {
            let name = self.intern(name);
            let departure = self.departures.entry(name).or_default();
            *departure = (*departure).max(Departure::of(node));
        }
    }

    fn apply_block(&mut self, block: &Lenient<AddressBlock>) -> Changes {
        let Some((pool, index)) = block_key(block.name()) else { return Changes::default() };
        let pool = self.intern(pool);
        let mut info = match block {
            Lenient::Readable(block) => {
                let node =
                    block.spec.node_name.as_deref().filter(|name| !name.is_empty()).map(|name| self.intern(name));
                BlockInfo::new(block, index, node)
            }
            Lenient::Unreadable(_) => BlockInfo::unreadable(index),
        };
        let assigned = self.assigned.get(&pool).and_then(|blocks| blocks.get(&index)).copied().unwrap_or(0);
        let blocks = self.blocks.entry(Arc::clone(&pool)).or_default();
        let pool_set = blocks.is_empty();
        info.carry_claim(blocks.get(&index), assigned);
        blocks.insert(index, info);
        Changes { pools: vec![pool], pool_set, nodes: true }
    }

    fn remove_block(&mut self, name: &str) -> Changes {
        let Some((pool, index)) = block_key(name) else { return Changes::default() };
        let Some((name, blocks)) =
            self.blocks.get_key_value(pool).map(|(name, _)| Arc::clone(name)).zip(self.blocks.get_mut(pool))
        else {
            return Changes::default();
        };
        blocks.remove(&index);
        let pool_set = blocks.is_empty();
        if pool_set {
            self.blocks.remove(&name);
        }
        Changes { pools: vec![name], pool_set, nodes: true }
    }

    /// Adds an assignment to the index, or replaces its entry. Of an unreadable assignment, the index keeps only the
    /// name and the address in this name.
    fn apply_assignment(&mut self, assignment: &Lenient<PartialAssignment>) -> Changes {
        let address = address_of(assignment.name());
        let Some((address, assignment)) = address.zip(assignment.readable()) else {
            let earlier = address.and_then(|address| Some((address, self.assignments.remove(&address)?)));
            if let Some((address, earlier)) = earlier {
                self.uncount(&earlier);
                self.void.remove(address, &earlier.pool, earlier.block);
            }
            self.unreadable_assignments.insert(assignment.name().into(), address);
            return Changes { pools: self.all_pools(), pool_set: false, nodes: true };
        };
        self.unreadable_assignments.remove(assignment.metadata.name.as_deref().unwrap_or_default());
        let spec = &assignment.spec;
        let (pool, node) = (self.intern(&spec.pool_name), self.intern(&spec.node_name));
        let block = block_index(&spec.pool_name, &spec.block_name).unwrap_or(u64::MAX);
        let ipv6 = spec.ipv6.as_deref().and_then(|text| text.parse().ok());
        let info = AssignmentInfo { pool: Arc::clone(&pool), block, node, ipv6 };
        if let Some(replaced) = self.assignments.insert(address, info) {
            self.uncount(&replaced);
            if replaced.pool != pool || replaced.block != block {
                self.void.remove(address, &replaced.pool, replaced.block);
            }
        }
        if let Some(released) = self.released.get_mut(&pool) {
            released.assigned(address);
        }
        *self.assigned.entry(Arc::clone(&pool)).or_default().entry(block).or_default() += 1;
        if let Some(block) = self.blocks.get_mut(&pool).and_then(|blocks| blocks.get_mut(&block)) {
            block.mark_used();
        }
        Changes { pools: vec![pool], pool_set: false, nodes: true }
    }

    /// Removes a deleted assignment. The cool-down of its address begins, unless the assignment was void.
    fn remove_assignment(&mut self, name: &str) -> Changes {
        if self.unreadable_assignments.remove(name).is_some() {
            return Changes { pools: self.all_pools(), pool_set: false, nodes: true };
        }
        let Some((address, info)) =
            address_of(name).and_then(|address| Some((address, self.assignments.remove(&address)?)))
        else {
            return Changes::default();
        };
        self.uncount(&info);
        if self.void.remove(address, &info.pool, info.block) {
            return Changes { pools: vec![info.pool], pool_set: false, nodes: true };
        }
        self.released.entry(Arc::clone(&info.pool)).or_default().released(address);
        Changes { pools: vec![info.pool], pool_set: false, nodes: true }
    }

    fn uncount(&mut self, info: &AssignmentInfo) {
        let Some(blocks) = self.assigned.get_mut(&info.pool) else { return };
        if let Some(count) = blocks.get_mut(&info.block) {
            *count -= 1;
            if *count == 0 {
                blocks.remove(&info.block);
            }
        }
        if blocks.is_empty() {
            self.assigned.remove(&info.pool);
        }
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    pub(super) fn all_pools(&mut self) -> Vec<Arc<str>> {
        let pools = self.pools.state();
        pools.iter().map(|pool| self.intern(pool.name())).collect()
    }

    fn block_names(&self) -> Vec<String> {
        let of_pool = |(pool, blocks): (&Arc<str>, &BTreeMap<u64, BlockInfo>)| {
            blocks.keys().map(|index| name::block(pool, index)).collect::<Vec<_>>()
        };
        self.blocks.iter().flat_map(of_pool).collect()
    }

    pub(super) fn assignment_names(&self) -> Vec<String> {
        let readable = self.assignments.keys().map(|address| assignment_name(*address));
        readable.chain(self.unreadable_assignments.keys().map(ToString::to_string)).collect()
    }
}
