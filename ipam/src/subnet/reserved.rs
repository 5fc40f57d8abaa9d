//! The addresses of a pool that are never assigned.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ip_pair::IpPair;
use crate::subnet::SubnetPair;

/// IPv4 addresses that no pod can use: "this network" (0.0.0.0/8), loopback, link-local (which includes Bobbin's
/// gateway), multicast and broadcast.
const UNUSABLE_IPV4: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
];
/// IPv6 addresses that no pod can use: unspecified and loopback, link-local and multicast.
const UNUSABLE_IPV6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::UNSPECIFIED, 127),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// The reserved addresses of a pool: its field `reserved`, the addresses of Nodes, and the addresses that no pod can use. An
/// address pair is reserved if one of its addresses is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    ipv4: Vec<Ipv4Net>,
    ipv6: Vec<Ipv6Net>,
}

impl Default for Reserved {
    /// Contains only the addresses that no pod can use.
    fn default() -> Self {
        let ipv4 = UNUSABLE_IPV4.iter().map(|(address, len)| Ipv4Net::new_assert(*address, *len)).collect();
        let ipv6 = UNUSABLE_IPV6.iter().map(|(address, len)| Ipv6Net::new_assert(*address, *len)).collect();
        Self { ipv4, ipv6 }
    }
}

/// An entry of `reserved` is neither an address nor a CIDR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reserved entry {0:?} is neither an address nor a CIDR: write it like 10.64.0.1 or 10.64.0.0/28")]
pub struct ReservedError(pub String);

impl Reserved {
    /// Parses addresses and CIDRs. A CIDR with host bits set reserves the whole network.
    pub fn parse(entries: &[String]) -> Result<Self, ReservedError> {
        let mut reserved = Self::default();
        for entry in entries {
            reserved.add(Self::parse_entry(entry)?);
        }
        Ok(reserved)
    }

    /// Parses one address or CIDR.
    pub fn parse_entry(entry: &str) -> Result<IpNet, ReservedError> {
        let net = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
        net.map_err(|_| ReservedError(entry.to_owned()))
    }

    /// Reserves a network or an address. A CIDR with host bits set reserves the whole network.
    pub fn add(&mut self, net: impl Into<IpNet>) {
        match net.into().trunc() {
            IpNet::V4(net) => self.ipv4.push(net),
            IpNet::V6(net) => self.ipv6.push(net),
        }
    }

    /// All reserved networks. They may overlap.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.ipv4.iter().copied().map(IpNet::V4).chain(self.ipv6.iter().copied().map(IpNet::V6))
    }

    /// Whether at least one address of the pair is reserved.
    pub fn covers(&self, pair: &IpPair) -> bool {
        pair.ipv4.is_some_and(|address| self.ipv4.iter().any(|net| net.contains(&address)))
            || pair.ipv6.is_some_and(|address| self.ipv6.iter().any(|net| net.contains(&address)))
    }

    /// How many address pairs of a subnet are reserved. In a dual-stack subnet, each family has this number of reserved
    /// addresses.
    pub fn count_in(&self, subnet: &SubnetPair) -> u128 {
        self.count_among_first(subnet, u128::MAX)
    }

    /// How many of the first `limit` address pairs of a subnet are reserved.
    pub(crate) fn count_among_first(&self, subnet: &SubnetPair, limit: u128) -> u128 {
        let mut ranges = self.offsets(subnet);
        ranges.sort_unstable();
        let (mut count, mut from) = (0_u128, 0_u128);
        for (first, last) in ranges {
            let first = first.max(from);
            let last = last.min(limit.saturating_sub(1));
            if limit > 0 && first <= last {
                count = count.saturating_add(last - first).saturating_add(1);
                from = last.saturating_add(1);
            }
        }
        count
    }

    /// The reserved parts of the subnet, each as its first and last offset. The parts are unsorted and may overlap.
    fn offsets(&self, subnet: &SubnetPair) -> Vec<(u128, u128)> {
        let ipv4 = subnet.ipv4.into_iter().flat_map(|net| {
            let base = u32::from(net.network());
            self.ipv4.iter().filter_map(move |reserved| {
                let first = reserved.network().max(net.network());
                let last = reserved.broadcast().min(net.broadcast());
                (first <= last).then(|| (u128::from(u32::from(first) - base), u128::from(u32::from(last) - base)))
            })
        });
        let ipv6 = subnet.ipv6.into_iter().flat_map(|net| {
            let base = u128::from(net.network());
            self.ipv6.iter().filter_map(move |reserved| {
                let first = reserved.network().max(net.network());
                let last = reserved.broadcast().min(net.broadcast());
                (first <= last).then(|| (u128::from(first) - base, u128::from(last) - base))
            })
        });
        ipv4.chain(ipv6).collect()
    }
}

#[cfg(test)]
mod tests;
