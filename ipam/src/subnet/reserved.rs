//! The addresses of a pool that are never assigned.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ip_pair::IpPair;
use crate::subnet::SubnetPair;

/// The parsed field `reserved` of a pool. An address pair is reserved if one of its addresses is reserved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    ipv4: Vec<Ipv4Net>,
    ipv6: Vec<Ipv6Net>,
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
            let net = entry
                .parse::<IpNet>()
                .or_else(|_| entry.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| ReservedError(entry.clone()))?;
            match net.trunc() {
                IpNet::V4(net) => reserved.ipv4.push(net),
                IpNet::V6(net) => reserved.ipv6.push(net),
            }
        }
        Ok(reserved)
    }

    /// Whether an address of the pair is reserved.
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

    /// The reserved parts of the subnet, each as its first and last offset. They are unsorted and may overlap.
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
