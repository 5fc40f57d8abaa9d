//! Assignments whose block is not there, or is another node's. Pure.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bobbin_ipam::{BlockRange, IpPair};

use super::{Facts, Holder};
use crate::slim::SlimAssignment;

/// An assignment whose block is not there, or is another node's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Loose {
    pub(crate) name: String,
    pub(crate) range: BlockRange,
    pub(crate) node: Arc<str>,
    /// The pool that it names.
    pub(crate) pool: Arc<str>,
    /// The index of the block that it names; `u64::MAX` if that is none of the pool.
    pub(crate) block: u64,
    /// The node that has the block; `None`: the block is free or not there.
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) block_is_there: bool,
}

impl Facts {
    /// Assignments whose block is not there or not their node's.
    pub(crate) fn loose(&self) -> Vec<Loose> {
        let mut loose = Vec::new();
        for (address, fact) in &self.assignments {
            let block = self.blocks.get(&fact.pool).and_then(|blocks| blocks.get(&fact.block));
            // Nobody knows whose a block is that can't be read.
            if block.is_some_and(|block| block.holder == Holder::Unknown) {
                continue;
            }
            let owner = block.and_then(|block| block.holder.node().cloned());
            if owner.as_ref() != Some(&fact.node) {
                loose.push(Loose {
                    name: assignment_name(*address),
                    range: range_of(*address, fact.ipv6),
                    node: Arc::clone(&fact.node),
                    pool: Arc::clone(&fact.pool),
                    block: fact.block,
                    owner,
                    block_is_there: block.is_some(),
                });
            }
        }
        loose
    }
}

/// The range of an assignment's addresses.
pub(crate) fn assignment_range(assignment: &SlimAssignment) -> Option<BlockRange> {
    let ipv6 = assignment.spec.ipv6.as_deref().and_then(|text| text.parse().ok());
    let ipv4 = assignment.spec.ipv4.as_deref().and_then(|text| text.parse().ok());
    Some(IpPair { ipv4, ipv6 }).filter(|pair| pair.ipv4.is_some() || pair.ipv6.is_some()).map(BlockRange::from)
}

pub(super) fn assignment_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => bobbin_crds::name::assignment(Some(address), None),
        IpAddr::V6(address) => bobbin_crds::name::assignment(None, Some(address)),
    }
    .unwrap_or_default()
}

pub(super) fn range_of(address: IpAddr, ipv6: Option<Ipv6Addr>) -> BlockRange {
    BlockRange::from(match address {
        IpAddr::V4(address) => IpPair { ipv4: Some(address), ipv6 },
        IpAddr::V6(address) => IpPair { ipv4: None, ipv6: Some(address) },
    })
}
