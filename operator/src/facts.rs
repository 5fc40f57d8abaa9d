//! What the watches have shown, in as few bytes as the decisions need: counts per block, not objects per address.
//!
//! `feed` writes it, everybody else asks it for views by value. It lags behind the API server, so nothing is freed, accepted
//! or deleted on its word alone: it says where to look.

mod block;
mod loose;
mod unreadable;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::{AddressBlock, AddressPool};
use bobbin_ipam::BlockRange;
use bobbin_ipam::overlap::SubnetConflict;

use crate::slim::{SlimAssignment, node_conflict};

pub(crate) use block::{BlockFact, Holder, block_key};
pub(crate) use loose::{Loose, assignment_range};
use loose::{assignment_name, range_of};
pub(crate) use unreadable::{InTheWay, address_of};

/// What is known of all objects.
#[derive(Default)]
pub(crate) struct Facts {
    pools: HashMap<Arc<str>, Arc<AddressPool>>,
    blocks: HashMap<Arc<str>, BTreeMap<u64, BlockFact>>,
    assignments: HashMap<IpAddr, AssignmentFact>,
    /// How many assignments name a block, whether the block is there or not.
    assigned: HashMap<Arc<str>, BTreeMap<u64, u32>>,
    freed: HashMap<Arc<str>, VecDeque<(Instant, u32)>>,
    nodes: HashMap<Arc<str>, NodeFact>,
    /// Nodes that were out of service when they were last seen.
    left_out_of_service: HashSet<Arc<str>>,
    names: HashSet<Arc<str>>,
    unreadable: unreadable::Unreadable,
}

#[derive(Clone, Debug)]
struct AssignmentFact {
    pool: Arc<str>,
    /// The block's index; `u64::MAX` if the block's name is not one of the pool.
    block: u64,
    node: Arc<str>,
    ipv6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, Default)]
struct NodeFact {
    out_of_service: bool,
    addresses: Vec<IpAddr>,
}

/// What a change may matter to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// The pools, by name.
    pub(crate) pools: Vec<Arc<str>>,
    /// Whether a pool, or a pool's first or last block, came or went.
    pub(crate) population: bool,
    /// Whether nodes, or what they own, changed.
    pub(crate) nodes: bool,
}

/// One pool, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolView {
    pub(crate) pool: Option<Arc<AddressPool>>,
    /// The pool is there and can't be read.
    pub(crate) unreadable: bool,
    /// Its blocks in the order of their indices.
    pub(crate) blocks: Vec<BlockFact>,
    pub(crate) used: u64,
    pub(crate) cooling: u64,
    /// When `cooling` will be less.
    pub(crate) warmer_in: Option<Duration>,
    pub(crate) nodes: usize,
    pub(crate) pools: usize,
}

impl Facts {
    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// A pool came or changed.
    pub(crate) fn pool(&mut self, pool: Lenient<AddressPool>) -> Touched {
        let name = self.name(pool.name());
        let known = self.pools.contains_key(&name) || self.unreadable.pools.contains(&name);
        match pool {
            Lenient::Readable(pool) => {
                self.unreadable.pools.remove(&name);
                self.pools.insert(Arc::clone(&name), Arc::new(pool));
            }
            // What it was before says nothing of what it is now.
            Lenient::Unreadable(_) => {
                self.pools.remove(&name);
                self.unreadable.pools.insert(Arc::clone(&name));
            }
        }
        Touched { pools: vec![name], population: !known, nodes: false }
    }

    /// A pool is gone.
    pub(crate) fn no_pool(&mut self, name: &str) -> Touched {
        let unreadable = self.unreadable.pools.take(name);
        let Some(name) = self.pools.remove_entry(name).map(|(name, _)| name).or(unreadable) else {
            return Touched::default();
        };
        self.freed.remove(&name);
        Touched { pools: vec![name], population: true, nodes: false }
    }

    /// A block came or changed.
    pub(crate) fn block(&mut self, block: &Lenient<AddressBlock>) -> Touched {
        let Some((pool, index)) = block_key(block.name()) else { return Touched::default() };
        let pool = self.name(pool);
        let mut fact = match block {
            Lenient::Readable(block) => {
                let node = block.spec.node_name.as_deref().filter(|name| !name.is_empty()).map(|name| self.name(name));
                BlockFact::of(block, index, node)
            }
            Lenient::Unreadable(_) => BlockFact::unreadable(index),
        };
        let assigned = self.assigned.get(&pool).and_then(|blocks| blocks.get(&index)).copied().unwrap_or(0);
        let blocks = self.blocks.entry(Arc::clone(&pool)).or_default();
        let population = blocks.is_empty();
        fact.follow(blocks.get(&index), assigned);
        blocks.insert(index, fact);
        Touched { pools: vec![pool], population, nodes: true }
    }

    /// A block is gone.
    pub(crate) fn no_block(&mut self, name: &str) -> Touched {
        let Some((pool, index)) = block_key(name) else { return Touched::default() };
        let Some((name, blocks)) =
            self.blocks.get_key_value(pool).map(|(name, _)| Arc::clone(name)).zip(self.blocks.get_mut(pool))
        else {
            return Touched::default();
        };
        blocks.remove(&index);
        let population = blocks.is_empty();
        if population {
            self.blocks.remove(&name);
        }
        Touched { pools: vec![name], population, nodes: true }
    }

    /// An assignment came. Assignments never change, but one may become unreadable or readable.
    pub(crate) fn assignment(&mut self, assignment: &Lenient<SlimAssignment>) -> Touched {
        let address = address_of(assignment.name());
        let Some((address, assignment)) = address.zip(assignment.readable()) else {
            let earlier = address.and_then(|address| self.assignments.remove(&address));
            if let Some(earlier) = earlier {
                self.uncount(&earlier);
            }
            self.unreadable.assignments.insert(assignment.name().into(), address);
            return Touched { pools: self.all_pools(), population: false, nodes: true };
        };
        self.unreadable.assignments.remove(assignment.metadata.name.as_deref().unwrap_or_default());
        let spec = &assignment.spec;
        let (pool, node) = (self.name(&spec.pool_name), self.name(&spec.node_name));
        let block = block_index(&spec.pool_name, &spec.block_name).unwrap_or(u64::MAX);
        let ipv6 = spec.ipv6.as_deref().and_then(|text| text.parse().ok());
        let fact = AssignmentFact { pool: Arc::clone(&pool), block, node, ipv6 };
        let replaced = self.assignments.insert(address, fact);
        if let Some(old) = replaced {
            self.uncount(&old);
        }
        *self.assigned.entry(Arc::clone(&pool)).or_default().entry(block).or_default() += 1;
        if let Some(block) = self.blocks.get_mut(&pool).and_then(|blocks| blocks.get_mut(&block)) {
            block.is_used();
        }
        Touched { pools: vec![pool], population: false, nodes: true }
    }

    /// An assignment is gone: its address rests from now on.
    pub(crate) fn no_assignment(&mut self, name: &str) -> Touched {
        if self.unreadable.assignments.remove(name).is_some() {
            return Touched { pools: self.all_pools(), population: false, nodes: true };
        }
        let Some(fact) = address_of(name).and_then(|address| self.assignments.remove(&address)) else {
            return Touched::default();
        };
        self.uncount(&fact);
        let freed = self.freed.entry(Arc::clone(&fact.pool)).or_default();
        match freed.back_mut() {
            Some((when, count)) if when.elapsed() < Duration::from_millis(500) => *count += 1,
            _ => freed.push_back((Instant::now(), 1)),
        }
        Touched { pools: vec![fact.pool], population: false, nodes: true }
    }

    fn uncount(&mut self, fact: &AssignmentFact) {
        let Some(blocks) = self.assigned.get_mut(&fact.pool) else { return };
        if let Some(count) = blocks.get_mut(&fact.block) {
            *count -= 1;
            if *count == 0 {
                blocks.remove(&fact.block);
            }
        }
        if blocks.is_empty() {
            self.assigned.remove(&fact.pool);
        }
    }

    /// A node came or changed.
    pub(crate) fn node(&mut self, node: &Lenient<PartialNode>) -> Touched {
        let name = self.name(node.name());
        self.left_out_of_service.remove(&name);
        let known = self.nodes.get(&name);
        let new = known.is_none();
        let fact = match node.readable() {
            Some(node) => NodeFact { out_of_service: node.out_of_service(), addresses: node.addresses() },
            // It is there; its addresses are those it last had.
            None => NodeFact { out_of_service: false, ..known.cloned().unwrap_or_default() },
        };
        self.nodes.insert(Arc::clone(&name), fact);
        Touched { pools: if new { self.all_pools() } else { Vec::new() }, population: false, nodes: true }
    }

    /// A node is gone. `last` is how it was when it went, if that is known.
    pub(crate) fn no_node(&mut self, name: &str, last: Option<&PartialNode>) -> Touched {
        let Some((name, fact)) = self.nodes.remove_entry(name) else { return Touched::default() };
        if fact.out_of_service || last.is_some_and(PartialNode::out_of_service) {
            self.left_out_of_service.insert(name);
        }
        Touched { pools: Vec::new(), population: false, nodes: true }
    }

    /// Whether a node is there.
    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// The nodes' own addresses, each as what no pool may have.
    pub(crate) fn node_addresses(&self) -> Vec<SubnetConflict> {
        let all = self.nodes.iter().flat_map(|(name, fact)| fact.addresses.iter().map(move |address| (name, *address)));
        all.map(|(name, address)| node_conflict(name, address)).collect()
    }

    fn all_pools(&self) -> Vec<Arc<str>> {
        self.pools.keys().chain(&self.unreadable.pools).cloned().collect()
    }

    /// The names of all pools.
    pub(crate) fn pool_names(&self) -> Vec<String> {
        self.pools.keys().chain(&self.unreadable.pools).map(ToString::to_string).collect()
    }

    /// The names of all nodes.
    pub(crate) fn node_names(&self) -> Vec<String> {
        self.nodes.keys().map(ToString::to_string).collect()
    }

    /// The names of all blocks.
    pub(crate) fn block_names(&self) -> Vec<String> {
        self.blocks
            .iter()
            .flat_map(|(pool, blocks)| blocks.keys().map(move |index| format!("{pool}-{index}")))
            .collect()
    }

    /// The names of all assignments.
    pub(crate) fn assignment_names(&self) -> Vec<String> {
        let readable = self.assignments.keys().map(|address| assignment_name(*address));
        readable.chain(self.unreadable.assignments.keys().map(ToString::to_string)).collect()
    }

    /// Everything that somebody has to look after: pools, and names of pools that blocks were left by.
    pub(crate) fn kept(&self) -> HashSet<Arc<str>> {
        self.pools.keys().chain(&self.unreadable.pools).chain(self.blocks.keys()).cloned().collect()
    }

    /// All pools that can be read.
    pub(crate) fn pools(&self) -> Vec<Arc<AddressPool>> {
        self.pools.values().cloned().collect()
    }

    /// One pool.
    pub(crate) fn view(&mut self, name: &str) -> PoolView {
        let pool = self.pools.get(name).cloned();
        let assigned = self.assigned.get(name);
        let count = |index| assigned.and_then(|blocks| blocks.get(&index)).copied().unwrap_or(0);
        let odd = |range| self.unreadable.assignments_in(range);
        let blocks = self.blocks.get(name).into_iter().flat_map(BTreeMap::values);
        let blocks = blocks
            .map(|block| BlockFact { assigned: count(block.index).saturating_add(odd(block.range)), ..block.clone() })
            .collect();
        let used = assigned.map_or(0, |blocks| blocks.values().map(|count| u64::from(*count)).sum());
        let used = used + self.unreadable_of(name);
        let rest = pool.as_ref().map_or(Duration::ZERO, |pool| pool.spec.cooldown());
        let freed = self.freed.get_mut(name);
        let (cooling, warmer_in) = freed.map_or((0, None), |freed| cooling(freed, rest));
        let unreadable = self.is_unreadable(name);
        PoolView {
            pool,
            unreadable,
            blocks,
            used,
            cooling,
            warmer_in,
            nodes: self.nodes.len(),
            pools: self.pools.len(),
        }
    }

    /// How many addresses of a pool are held on which nodes, most first; blocks that are claimed count where no address is held.
    pub(crate) fn holders(&self, pool: &str) -> Vec<(Arc<str>, u64)> {
        let mut holders: HashMap<&Arc<str>, u64> = HashMap::new();
        for block in self.blocks.get(pool).into_iter().flat_map(BTreeMap::values) {
            if let Some(node) = block.holder.node() {
                holders.entry(node).or_default();
            }
        }
        for fact in self.assignments.values().filter(|fact| &*fact.pool == pool) {
            *holders.entry(&fact.node).or_default() += 1;
        }
        let mut holders: Vec<_> = holders.into_iter().map(|(node, count)| (Arc::clone(node), count)).collect();
        holders.sort_by(|(a, most), (b, least)| least.cmp(most).then_with(|| a.cmp(b)));
        holders
    }

    /// Names of nodes that own a block or an assignment and are not there, and whether each left out of service.
    pub(crate) fn owners_gone(&self) -> HashMap<Arc<str>, bool> {
        let blocks = self.blocks.values().flat_map(BTreeMap::values).filter_map(|block| block.holder.node());
        let owners: HashSet<&Arc<str>> = blocks.chain(self.assignments.values().map(|fact| &fact.node)).collect();
        owners
            .into_iter()
            .filter(|owner| !self.nodes.contains_key(*owner))
            .map(|owner| (Arc::clone(owner), self.left_out_of_service.contains(owner)))
            .collect()
    }

    /// Blocks of other pools than this: their names and ranges.
    pub(crate) fn blocks_of_others(&self, pool: &str) -> Vec<(String, BlockRange)> {
        let others = self.blocks.iter().filter(|(name, _)| &***name != pool);
        let blocks = others.flat_map(|(name, blocks)| blocks.values().map(move |block| (name, block)));
        blocks.filter_map(|(name, block)| Some((format!("{name}-{}", block.index), block.range?))).collect()
    }

    /// Forgets names that nothing has any more, and what was known of nodes that own nothing.
    pub(crate) fn tidy(&mut self) {
        let gone = self.owners_gone();
        self.left_out_of_service.retain(|name| gone.contains_key(name));
        self.freed.retain(|name, _| self.pools.contains_key(name) || self.unreadable.pools.contains(name));
        // One is the set's own, so a name with no other is used by nothing.
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }
}

fn cooling(freed: &mut VecDeque<(Instant, u32)>, rest: Duration) -> (u64, Option<Duration>) {
    while freed.front().is_some_and(|(when, _)| when.elapsed() >= rest) {
        freed.pop_front();
    }
    let count = freed.iter().map(|(_, count)| u64::from(*count)).sum();
    (count, freed.front().map(|(when, _)| rest.saturating_sub(when.elapsed())))
}

/// The index of a block's name, if it is one of the pool's.
pub(crate) fn block_index(pool: &str, block: &str) -> Option<u64> {
    block.strip_prefix(pool)?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests;
