//! Objects that can't be decoded. An unreadable object counts as in use, so no pool gets addresses that the object may
//! have. Pure.

use std::net::IpAddr;

use bobbin_crds::name;
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::pool_shape::PoolShape;
use bobbin_ipam::{BlockRange, PoolLayout, SubnetPair};

use super::block::BlockOwner;
use super::index::Index;
use super::suspects::range_of;

/// An unreadable object that may have addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableObject {
    /// Kind and name of the object.
    pub(crate) what: String,
    /// The addresses of the object. `None` if they are unknown.
    pub(crate) range: Option<BlockRange>,
}

impl UnreadableObject {
    /// The parts of the wanted subnets that a pool can't have because of this object.
    pub(crate) fn conflicts(&self, wanted: &[SubnetPair]) -> Vec<SubnetConflict> {
        let conflict = |range| SubnetConflict::unreadable(self.what.clone(), range);
        match self.range {
            Some(range) if wanted.iter().any(|subnet| range.overlaps_subnet(subnet)) => vec![conflict(range)],
            Some(_) => Vec::new(),
            None => wanted.iter().map(|subnet| conflict(BlockRange { ipv4: subnet.ipv4, ipv6: subnet.ipv6 })).collect(),
        }
    }

    pub(crate) fn pool(name: &str) -> Self {
        Self { what: format!("AddressPool {name}"), range: None }
    }

    /// An unreadable `ServiceCIDR`.
    pub(crate) fn service_range(name: &str) -> Self {
        Self { what: format!("ServiceCIDR {name}"), range: None }
    }

    /// An unreadable block. `layout` is the layout of the block's pool, if the pool can be decoded.
    pub(crate) fn block(name: &str, index: Option<u64>, layout: Option<&PoolLayout>) -> Self {
        let range = layout.zip(index).and_then(|(layout, index)| layout.block(index));
        Self { what: format!("AddressBlock {name}"), range }
    }

    /// An unreadable assignment. The operator takes the address from the assignment's name.
    pub(crate) fn assignment(name: &str) -> Self {
        let range = address_of(name).map(|address| range_of(address, None));
        Self { what: format!("IPAssignment {name}"), range }
    }
}

/// The address in the name of an assignment; `None` if the name is not an address.
pub(crate) fn address_of(name: &str) -> Option<IpAddr> {
    name.parse::<std::net::Ipv4Addr>().map(IpAddr::V4).or_else(|_| name.replace('-', ":").parse().map(IpAddr::V6)).ok()
}

impl Index {
    /// Whether a pool of this name exists and can't be decoded.
    pub(crate) fn is_unreadable(&self, pool: &str) -> bool {
        self.pool(pool).is_some_and(|pool| pool.readable().is_none())
    }

    /// How many unreadable assignments may have an address in the range.
    pub(super) fn unreadable_assignments_in(&self, range: Option<BlockRange>) -> u32 {
        let inside = |address: &Option<IpAddr>| match (address, range) {
            (Some(address), Some(range)) => range.offset_of(*address).is_some(),
            (None, _) | (_, None) => true,
        };
        u32::try_from(self.unreadable_assignments.values().filter(|address| inside(address)).count())
            .unwrap_or(u32::MAX)
    }

    /// How many unreadable assignments may have an address of the pool.
    pub(super) fn unreadable_assignments_of(&self, pool: &str) -> u64 {
        let all = &self.unreadable_assignments;
        if all.is_empty() {
            return 0;
        }
        let shape = self.shape(pool);
        let blocks = self.blocks.get(pool);
        let may_belong = |address: &Option<IpAddr>| {
            let Some(address) = *address else { return true };
            shape.as_ref().is_some_and(|shape| shape.layout.index_of(address).is_some())
                || blocks
                    .into_iter()
                    .flat_map(|blocks| blocks.values())
                    .any(|block| block.range.is_some_and(|range| range.offset_of(address).is_some()))
        };
        all.values().filter(|address| may_belong(address)).count() as u64
    }

    /// The address range of each unreadable assignment. `None` if the range is unknown.
    pub(crate) fn unreadable_assignment_ranges(&self) -> Vec<Option<BlockRange>> {
        self.unreadable_assignments.values().map(|address| address.map(|address| range_of(address, None))).collect()
    }

    /// All unreadable pools, blocks, assignments and Service ranges, except the pool named `except`.
    pub(crate) fn unreadable_objects(&self, except: &str) -> Vec<UnreadableObject> {
        let pools = self.pools.state();
        let pools = pools.iter().filter(|pool| pool.readable().is_none() && pool.name() != except);
        let mut objects: Vec<_> = pools.map(|pool| UnreadableObject::pool(pool.name())).collect();
        for (pool, blocks) in &self.blocks {
            let mut unreadable = blocks.values().filter(|block| block.owner == BlockOwner::Unknown).peekable();
            let shape = unreadable.peek().and_then(|_| self.shape(pool));
            let layout = shape.as_ref().map(|shape| &shape.layout);
            let object = |index| UnreadableObject::block(&name::block(pool, index), Some(index), layout);
            objects.extend(unreadable.map(|block| object(block.index)));
        }
        objects.extend(self.foreign.unreadable_services());
        objects.extend(self.unreadable_assignments.keys().map(|name| UnreadableObject::assignment(name)));
        objects
    }

    fn shape(&self, pool: &str) -> Option<PoolShape> {
        self.pool(pool).and_then(|pool| PoolShape::read(pool.readable()?).ok())
    }
}
