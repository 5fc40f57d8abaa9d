//! A pool's spec and status, read into arithmetic. Pure.

use std::ops::Range;

use bobbin_crds::pool::{Acceptance, AcceptedSubnet, Subnet};
use bobbin_crds::{AddressPool, AddressPoolStatus};
use bobbin_ipam::{PoolLayout, Reserved, SubnetPair};

/// A pool, read.
#[derive(Clone, Debug)]
pub(crate) struct PoolShape {
    /// All entries of the spec, in order: what indices are counted by.
    pub(crate) subnets: Vec<SubnetPair>,
    /// The layout of all of them.
    pub(crate) layout: PoolLayout,
    /// Which of them are accepted.
    pub(crate) accepted: Vec<bool>,
    /// What is never assigned.
    pub(crate) reserved: Reserved,
    /// The same, as it was written.
    pub(crate) reserved_nets: Vec<ipnet::IpNet>,
}

impl PoolShape {
    /// Reads a pool. An error is the sentence for its condition; the schema lets none through.
    pub(crate) fn read(pool: &AddressPool) -> Result<Self, String> {
        let subnets = pool.spec.subnets.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        let bits = u8::try_from(pool.spec.block_size_bits).unwrap_or(u8::MAX);
        let layout = PoolLayout::new(&subnets, bits).map_err(|error| error.to_string())?;
        let reserved = Reserved::parse(&pool.spec.reserved).map_err(|error| error.to_string())?;
        let reserved_nets = pool.spec.reserved.iter().filter_map(|text| net(text)).collect();
        let listed = accepted_entries(pool.status.as_ref());
        let is_accepted =
            |entry: &Subnet| listed.iter().any(|listed| is_of(listed, entry) && listed.state == Acceptance::Accepted);
        let accepted = pool.spec.subnets.iter().map(is_accepted).collect();
        Ok(Self { subnets, layout, accepted, reserved, reserved_nets })
    }

    /// The indices of the blocks that may be carved.
    pub(crate) fn accepted_spans(&self) -> impl Iterator<Item = Range<u64>> {
        self.accepted.iter().enumerate().filter(|(_, accepted)| **accepted).map(|(entry, _)| self.layout.span(entry))
    }

    /// The accepted entries alone, laid out: what the status counts.
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

/// The entries that a status lists.
pub(crate) fn accepted_entries(status: Option<&AddressPoolStatus>) -> &[AcceptedSubnet] {
    status.map_or(&[], |status| &status.accepted_subnets)
}

/// Whether a status entry is of a spec entry.
pub(crate) fn is_of(listed: &AcceptedSubnet, entry: &Subnet) -> bool {
    listed.ipv4 == entry.ipv4 && listed.ipv6 == entry.ipv6
}

/// A spec entry, read.
pub(crate) fn pair(entry: &Subnet) -> Result<SubnetPair, String> {
    SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref()).map_err(|error| error.to_string())
}

fn net(text: &str) -> Option<ipnet::IpNet> {
    let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
    net.ok().map(|net: ipnet::IpNet| net.trunc())
}
