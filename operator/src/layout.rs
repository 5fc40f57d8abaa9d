//! The spec and status of a pool, parsed for address arithmetic. Pure.

use std::ops::Range;

use bobbin_crds::pool::{Acceptance, AcceptedSubnet, Subnet};
use bobbin_crds::{AddressPool, AddressPoolStatus};
use bobbin_ipam::overlap::PoolSubnet;
use bobbin_ipam::{LayoutError, PoolLayout, Reserved, ReservedError, SubnetError, SubnetPair};
use ipnet::IpNet;

/// A pool whose subnets and reserved addresses are parsed.
#[derive(Clone, Debug)]
pub(crate) struct PoolShape {
    /// All entries of `spec.subnets`, in order. Block indices count the blocks of all entries.
    pub(crate) subnets: Vec<SubnetPair>,
    /// The blocks of all entries of `spec.subnets`.
    pub(crate) layout: PoolLayout,
    /// For each entry of `spec.subnets`, whether the operator has accepted it.
    pub(crate) accepted: Vec<bool>,
    /// The addresses that are never assigned.
    pub(crate) reserved: Reserved,
    /// The reserved addresses, as CIDRs.
    pub(crate) reserved_nets: Vec<IpNet>,
}

/// Why a pool's spec can't be parsed. The schema should have refused such a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Reserved(#[from] ReservedError),
}

impl PoolShape {
    /// Parses the spec and the status of a pool.
    pub(crate) fn read(pool: &AddressPool) -> Result<Self, ShapeError> {
        Self::with_listed(pool, accepted_entries(pool.status.as_ref()))
    }

    /// Parses a pool as if its status listed the entries `listed`.
    pub(crate) fn with_listed(pool: &AddressPool, listed: &[AcceptedSubnet]) -> Result<Self, ShapeError> {
        let subnets = pool.spec.subnets.iter().map(subnet_pair).collect::<Result<Vec<_>, _>>()?;
        let bits = u8::try_from(pool.spec.block_size_bits).unwrap_or(u8::MAX);
        let layout = PoolLayout::new(&subnets, bits)?;
        let reserved = Reserved::parse(&pool.spec.reserved)?;
        let reserved_nets = pool.spec.reserved.iter().filter_map(|text| net(text)).collect();
        let is_accepted =
            |entry: &Subnet| listed.iter().any(|listed| is_of(listed, entry) && listed.state == Acceptance::Accepted);
        let accepted = pool.spec.subnets.iter().map(is_accepted).collect();
        Ok(Self { subnets, layout, accepted, reserved, reserved_nets })
    }

    /// The ranges of indices of all blocks that the operator may carve, one range for each accepted entry.
    pub(crate) fn accepted_spans(&self) -> impl Iterator<Item = Range<u64>> {
        self.accepted.iter().enumerate().filter(|(_, accepted)| **accepted).map(|(entry, _)| self.layout.span(entry))
    }

    /// The layout of the accepted entries only. The operator computes the counts in the pool's status from this layout.
    pub(crate) fn counted(&self) -> Option<PoolLayout> {
        let subnets: Vec<SubnetPair> = self
            .subnets
            .iter()
            .zip(&self.accepted)
            .filter(|(_, accepted)| **accepted)
            .map(|(subnet, _)| *subnet)
            .collect();
        let bits = self.layout.block(0).map_or(0, |block| block.as_subnet().host_bits());
        PoolLayout::new(&subnets, bits).ok()
    }
}

/// The subnet entries that a pool's status lists.
pub(crate) fn accepted_entries(status: Option<&AddressPoolStatus>) -> &[AcceptedSubnet] {
    status.map_or(&[], |status| &status.accepted_subnets)
}

/// Whether an entry of a pool's status and an entry of its spec are the same subnet.
pub(crate) fn is_of(listed: &AcceptedSubnet, entry: &Subnet) -> bool {
    listed.ipv4 == entry.ipv4 && listed.ipv6 == entry.ipv6
}

/// The subnet entries that the statuses of the given pools list.
pub(crate) fn entries<'a>(pools: impl IntoIterator<Item = &'a AddressPool>) -> Vec<PoolSubnet> {
    let of_pool = |pool: &'a AddressPool| {
        accepted_entries(pool.status.as_ref()).iter().filter_map(move |listed| entry(pool, listed))
    };
    pools.into_iter().flat_map(of_pool).collect()
}

/// One subnet entry of a pool's status, parsed; `None` if the subnet can't be parsed.
pub(crate) fn entry(pool: &AddressPool, listed: &AcceptedSubnet) -> Option<PoolSubnet> {
    let subnet = SubnetPair::parse(listed.ipv4.as_deref(), listed.ipv6.as_deref()).ok()?;
    Some(PoolSubnet {
        pool_uid: pool.metadata.uid.clone().unwrap_or_default(),
        pool: pool.metadata.name.clone().unwrap_or_default(),
        since: listed.since.0.as_microsecond(),
        state: listed.state,
        subnet,
    })
}

/// Parses an entry of `spec.subnets`.
pub(crate) fn subnet_pair(entry: &Subnet) -> Result<SubnetPair, SubnetError> {
    SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref())
}

fn net(text: &str) -> Option<IpNet> {
    let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.ok().map(|net: IpNet| net.trunc())
}
