//! Finds assignments that may be void. The block of such an assignment does not exist, is free, belongs to another node, or
//! lacks the assignment's address. Pure.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bobbin_ipam::{BlockRange, IpPair};

use super::block::BlockOwner;
use super::index::Index;
use super::objects::PartialAssignment;

/// An assignment whose block does not exist, whose node does not own the block, or whose address is not in the block.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SuspectAssignment {
    pub(crate) name: String,
    pub(crate) range: BlockRange,
    pub(crate) node: Arc<str>,
    /// The pool that the assignment names.
    pub(crate) pool: Arc<str>,
    /// The index of the block that the assignment names; `u64::MAX` if the block's name does not belong to the pool.
    pub(crate) block: u64,
    /// The node that owns the block. `None` if the block is free or does not exist.
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) block_exists: bool,
    /// Whether the block exists, and an address of the assignment lies outside the block.
    pub(crate) outside: bool,
}

impl SuspectAssignment {
    /// Whether the named block does not exist or lacks the addresses. Callers must then protect the addresses
    /// themselves, because no block shows that the addresses are in use.
    pub(crate) fn lacks_block(&self) -> bool {
        !self.block_exists || self.outside
    }
}

impl Index {
    /// Returns all suspect assignments. Leaves out the assignments of an unreadable block, because their node may own that
    /// block.
    pub(crate) fn suspect_assignments(&self) -> Vec<SuspectAssignment> {
        let mut suspects = Vec::new();
        for (address, info) in &self.assignments {
            let block = self.blocks.get(&info.pool).and_then(|blocks| blocks.get(&info.block));
            if block.is_some_and(|block| block.owner == BlockOwner::Unknown) {
                continue;
            }
            let owner = block.and_then(|block| block.owner.node().cloned());
            let outside =
                block.and_then(|block| block.range).is_some_and(|range| !contains(&range, *address, info.ipv6));
            if outside || owner.as_ref() != Some(&info.node) {
                suspects.push(SuspectAssignment {
                    name: assignment_name(*address),
                    range: range_of(*address, info.ipv6),
                    node: Arc::clone(&info.node),
                    pool: Arc::clone(&info.pool),
                    block: info.block,
                    owner,
                    block_exists: block.is_some(),
                    outside,
                });
            }
        }
        suspects
    }
}

/// Whether the block contains the address and the IPv6 address that is paired with it.
fn contains(range: &BlockRange, address: IpAddr, ipv6: Option<Ipv6Addr>) -> bool {
    range.offset_of(address).is_some() && ipv6.is_none_or(|ipv6| range.offset_of(ipv6.into()).is_some())
}

/// The addresses of an assignment, as a range; `None` if the assignment has no valid address.
pub(crate) fn assignment_range(assignment: &PartialAssignment) -> Option<BlockRange> {
    let ipv6 = assignment.spec.ipv6.as_deref().and_then(|text| text.parse().ok());
    let ipv4 = assignment.spec.ipv4.as_deref().and_then(|text| text.parse().ok());
    Some(IpPair { ipv4, ipv6 }).filter(|pair| pair.ipv4.is_some() || pair.ipv6.is_some()).map(BlockRange::from)
}

/// The name of the assignment that holds an address.
pub(super) fn assignment_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => bobbin_crds::name::assignment(Some(address), None),
        IpAddr::V6(address) => bobbin_crds::name::assignment(None, Some(address)),
    }
    .unwrap_or_default()
}

/// An address and the IPv6 address paired with it, as one range.
pub(super) fn range_of(address: IpAddr, ipv6: Option<Ipv6Addr>) -> BlockRange {
    BlockRange::from(match address {
        IpAddr::V4(address) => IpPair { ipv4: Some(address), ipv6 },
        IpAddr::V6(address) => IpPair { ipv4: None, ipv6: Some(address) },
    })
}
