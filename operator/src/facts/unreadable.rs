//! Objects that can't be read: there, in use, and in the way of whatever could contradict them. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bobbin_ipam::BlockRange;
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::{PoolLayout, SubnetPair};

use super::{Facts, Holder, range_of};
use crate::layout::PoolShape;

/// What an unreadable object is to a pool that wants its addresses: the end of a sentence.
const WHY: &str =
    "which can't be read, so its addresses may be in use: correct or delete it, the event on it says what is wrong";

/// An unreadable object that may have addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InTheWay {
    /// The object, with its kind.
    pub(crate) what: String,
    /// Its addresses; `None`: nobody knows which.
    pub(crate) range: Option<BlockRange>,
}

impl InTheWay {
    /// The object as what these wanted subnets overlap with.
    pub(crate) fn conflicts(&self, wanted: &[SubnetPair]) -> Vec<SubnetConflict> {
        let conflict = |range| SubnetConflict { what: self.what.clone(), range, why: WHY };
        match self.range {
            Some(range) if wanted.iter().any(|subnet| range.overlaps_subnet(subnet)) => vec![conflict(range)],
            Some(_) => Vec::new(),
            None => wanted.iter().map(|subnet| conflict(BlockRange { ipv4: subnet.ipv4, ipv6: subnet.ipv6 })).collect(),
        }
    }

    pub(crate) fn pool(name: &str) -> Self {
        Self { what: format!("AddressPool {name}"), range: None }
    }

    /// A block. `layout` is that of its pool, if the pool can be read.
    pub(crate) fn block(name: &str, index: Option<u64>, layout: Option<&PoolLayout>) -> Self {
        let range = layout.zip(index).and_then(|(layout, index)| layout.block(index));
        Self { what: format!("AddressBlock {name}"), range }
    }

    /// An assignment. Its name is its address.
    pub(crate) fn assignment(name: &str) -> Self {
        let range = address_of(name).map(|address| range_of(address, None));
        Self { what: format!("IPAssignment {name}"), range }
    }
}

/// The address that an assignment of that name is of.
pub(crate) fn address_of(name: &str) -> Option<IpAddr> {
    name.parse::<std::net::Ipv4Addr>().map(IpAddr::V4).or_else(|_| name.replace('-', ":").parse().map(IpAddr::V6)).ok()
}

/// The unreadable pools and assignments. Unreadable blocks are among the blocks, unreadable nodes among the nodes.
#[derive(Default)]
pub(super) struct Unreadable {
    pub(super) pools: HashSet<Arc<str>>,
    /// By name; `None`: the name is no address.
    pub(super) assignments: HashMap<Box<str>, Option<IpAddr>>,
}

impl Unreadable {
    /// How many assignments there are in a range; one that may be anywhere counts.
    pub(super) fn assignments_in(&self, range: Option<BlockRange>) -> u32 {
        let inside = |address: &Option<IpAddr>| match (address, range) {
            (Some(address), Some(range)) => range.offset_of(*address).is_some(),
            (None, _) | (_, None) => true,
        };
        u32::try_from(self.assignments.values().filter(|address| inside(address)).count()).unwrap_or(u32::MAX)
    }
}

impl Facts {
    /// Whether a pool is there and can't be read.
    pub(crate) fn is_unreadable(&self, pool: &str) -> bool {
        self.unreadable.pools.contains(pool)
    }

    /// How many unreadable assignments may be of a pool.
    pub(super) fn unreadable_of(&self, pool: &str) -> u64 {
        let all = &self.unreadable.assignments;
        if all.is_empty() {
            return 0;
        }
        let shape = self.pools.get(pool).and_then(|pool| PoolShape::read(pool).ok());
        let blocks = self.blocks.get(pool);
        let may_be = |address: &Option<IpAddr>| {
            let Some(address) = *address else { return true };
            shape.as_ref().is_some_and(|shape| shape.layout.index_of(address).is_some())
                || blocks
                    .into_iter()
                    .flat_map(|blocks| blocks.values())
                    .any(|block| block.range.is_some_and(|range| range.offset_of(address).is_some()))
        };
        all.values().filter(|address| may_be(address)).count() as u64
    }

    /// The ranges of the unreadable assignments; `None`: it may be anywhere.
    pub(crate) fn unreadable_assignments(&self) -> Vec<Option<BlockRange>> {
        self.unreadable.assignments.values().map(|address| address.map(|address| range_of(address, None))).collect()
    }

    /// All that is unreadable and may have addresses of a pool other than `pool`, or of this one without its knowing.
    pub(crate) fn in_the_way(&self, pool: &str) -> Vec<InTheWay> {
        let pools = self.unreadable.pools.iter().filter(|name| &***name != pool).map(|name| InTheWay::pool(name));
        let blocks = self.blocks.iter().flat_map(|(pool, blocks)| {
            let mut unreadable = blocks.values().filter(|block| block.holder == Holder::Unknown).peekable();
            let layout =
                unreadable.peek().and_then(|_| self.pools.get(pool)).and_then(|pool| PoolShape::read(pool).ok());
            unreadable
                .map(|block| {
                    let name = format!("{pool}-{}", block.index);
                    InTheWay::block(&name, Some(block.index), layout.as_ref().map(|shape| &shape.layout))
                })
                .collect::<Vec<_>>()
        });
        let assignments = self.unreadable.assignments.keys().map(|name| InTheWay::assignment(name));
        pools.chain(blocks).chain(assignments).collect()
    }
}
