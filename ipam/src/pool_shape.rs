//! The spec and status of a pool, parsed for address arithmetic. Pure.

use std::net::IpAddr;
use std::ops::Range;

use bobbin_crds::pool::{Acceptance, AcceptedSubnet, Subnet};
use bobbin_crds::{AddressPool, AddressPoolStatus};

use crate::overlap::PoolSubnet;
use crate::{LayoutError, PoolLayout, Reserved, ReservedError, SubnetError, SubnetPair};

/// A pool whose subnets and reserved addresses are parsed.
#[derive(Clone, Debug)]
pub struct PoolShape {
    /// All entries of `spec.subnets`, in order.
    pub subnets: Vec<SubnetPair>,
    /// The blocks of the accepted entries of `spec.subnets`. The other entries have no blocks.
    pub layout: PoolLayout,
    /// For each entry of `spec.subnets`, whether the operator has accepted it.
    pub accepted: Vec<bool>,
    /// The addresses that are never assigned.
    pub reserved: Reserved,
}

/// Why a pool's spec can't be parsed. The schema should have refused such a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// An entry of `spec.subnets` can't be parsed.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The subnets and `blockSizeBits` don't fit together.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An entry of `spec.reserved` can't be parsed.
    #[error(transparent)]
    Reserved(#[from] ReservedError),
}

impl PoolShape {
    /// Parses the spec and the status of a pool.
    pub fn read(pool: &AddressPool) -> Result<Self, ShapeError> {
        Self::with_listed(pool, accepted_entries(pool.status.as_ref()))
    }

    /// Parses a pool as if its status listed the entries `listed`.
    pub fn with_listed(pool: &AddressPool, listed: &[AcceptedSubnet]) -> Result<Self, ShapeError> {
        let subnets = pool.spec.subnets.iter().map(subnet_pair).collect::<Result<Vec<_>, _>>()?;
        let bits = block_size_bits(pool);
        let in_order = PoolLayout::new(&subnets, bits)?;
        let (mut places, mut accepted) = (Vec::new(), Vec::new());
        for (number, (entry, subnet)) in pool.spec.subnets.iter().zip(&subnets).enumerate() {
            let listed = listed.iter().find(|listed| is_accepted(listed, entry));
            accepted.push(listed.is_some());
            // An older version of the operator numbered the blocks in the order of `spec.subnets`, and did not write `firstIndex`.
            let first = listed.map(|listed| first_index(listed).unwrap_or(in_order.span(number).start));
            places.push((*subnet, first));
        }
        let layout = PoolLayout::placed(&places, bits)?;
        let reserved = Reserved::parse(&pool.spec.reserved)?;
        Ok(Self { subnets, layout, accepted, reserved })
    }

    /// The layout of all entries of `spec.subnets`, including those that are not accepted. The blocks are numbered in the
    /// order of the entries.
    pub fn in_order(pool: &AddressPool) -> Result<PoolLayout, ShapeError> {
        let subnets = pool.spec.subnets.iter().map(subnet_pair).collect::<Result<Vec<_>, _>>()?;
        Ok(PoolLayout::new(&subnets, block_size_bits(pool))?)
    }

    /// Reserves addresses of Nodes, in addition to `spec.reserved`.
    pub fn reserve(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        addresses.into_iter().for_each(|address| self.reserved.add(address));
    }

    /// The indices of all blocks that the operator may carve. Returns one range of indices for each accepted entry.
    pub fn accepted_spans(&self) -> impl Iterator<Item = Range<u64>> {
        self.accepted.iter().enumerate().filter(|(_, accepted)| **accepted).map(|(entry, _)| self.layout.span(entry))
    }
}

/// The subnet entries that a pool's status lists.
pub fn accepted_entries(status: Option<&AddressPoolStatus>) -> &[AcceptedSubnet] {
    status.map_or(&[], |status| &status.accepted_subnets)
}

/// Whether an entry of a pool's status and an entry of its spec are the same subnet.
pub fn is_of(listed: &AcceptedSubnet, entry: &Subnet) -> bool {
    listed.ipv4 == entry.ipv4 && listed.ipv6 == entry.ipv6
}

/// Whether an entry of a pool's status accepts an entry of its spec.
pub fn is_accepted(listed: &AcceptedSubnet, entry: &Subnet) -> bool {
    is_of(listed, entry) && listed.state == Acceptance::Accepted
}

/// The index of an accepted entry's first block. `None` if the status does not contain the index yet.
pub fn first_index(listed: &AcceptedSubnet) -> Option<u64> {
    listed.first_index.and_then(|first| u64::try_from(first).ok())
}

/// The number of host bits of the pool's blocks.
pub fn block_size_bits(pool: &AddressPool) -> u8 {
    u8::try_from(pool.spec.block_size_bits).unwrap_or(u8::MAX)
}

/// The subnet entries in the statuses of the given pools.
pub fn entries<'a>(pools: impl IntoIterator<Item = &'a AddressPool>) -> Vec<PoolSubnet> {
    let of_pool = |pool: &'a AddressPool| {
        accepted_entries(pool.status.as_ref()).iter().filter_map(move |listed| entry(pool, listed))
    };
    pools.into_iter().flat_map(of_pool).collect()
}

/// One subnet entry of a pool's status, parsed; `None` if the subnet can't be parsed.
pub fn entry(pool: &AddressPool, listed: &AcceptedSubnet) -> Option<PoolSubnet> {
    let subnet = SubnetPair::parse(listed.ipv4.as_deref(), listed.ipv6.as_deref()).ok()?;
    Some(PoolSubnet {
        pool_uid: pool.metadata.uid.clone().unwrap_or_default(),
        pool: pool.metadata.name.clone().unwrap_or_default(),
        since: listed.since.0.as_microsecond(),
        state: listed.state,
        subnet,
        deleting: pool.metadata.deletion_timestamp.is_some(),
    })
}

/// The entries of a pool's spec that the operator has accepted, parsed.
pub fn accepted_subnets(pool: &AddressPool) -> impl Iterator<Item = SubnetPair> {
    let listed = accepted_entries(pool.status.as_ref());
    let accepted = |entry: &&Subnet| listed.iter().any(|listed| is_accepted(listed, entry));
    pool.spec.subnets.iter().filter(accepted).filter_map(|entry| subnet_pair(entry).ok())
}

/// Parses an entry of `spec.subnets`.
pub fn subnet_pair(entry: &Subnet) -> Result<SubnetPair, SubnetError> {
    SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref())
}
