//! The MTU of pods' links: the configured value or the uplink's MTU, limited to the range that both address families
//! allow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address;
use super::error::KernelError;
use super::link::{self, Link};
use super::route;
use super::socket::Netlink;
use crate::settings::Settings;

/// Addresses that no network uses: the dummy address of RFC 7600, and an address in the IPv6 documentation prefix. A
/// route lookup for such an address finds the default route. It is fast even if the table holds a million BGP routes.
const UNUSED_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const UNUSED_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 8);
const MIN_MTU: u32 = 1280;
const MAX_MTU: u32 = 65535;
const DEFAULT_MTU: u32 = 1500;

/// Returns the configured MTU for pods, or else the MTU of the default route's link (IPv4 before IPv6). Without a
/// default route, returns the MTU of the link with a node address, or else 1500. The result is between 1280 and 65535.
pub(crate) fn detect(netlink: &mut Netlink, settings: &Settings, node: &[IpAddr]) -> Result<u32, KernelError> {
    if let Some(mtu) = settings.mtu {
        return Ok(mtu.clamp(MIN_MTU, MAX_MTU));
    }
    let uplink = uplink(netlink, node)?;
    Ok(uplink.map_or(DEFAULT_MTU, |link| link.mtu).clamp(MIN_MTU, MAX_MTU))
}

fn uplink(netlink: &mut Netlink, node: &[IpAddr]) -> Result<Option<Link>, KernelError> {
    for unused in [UNUSED_IPV4.into(), UNUSED_IPV6.into()] {
        let Some(index) = route::link_to(netlink, unused)? else { continue };
        if let Some(link) = link::by_index(netlink, index)?.filter(|link| link.index != link::LOOPBACK) {
            return Ok(Some(link));
        }
    }
    let addresses = address::list(netlink)?;
    let with_node_address =
        addresses.iter().find(|(index, address)| *index != link::LOOPBACK && node.contains(address));
    let Some((index, _)) = with_node_address else { return Ok(None) };
    link::by_index(netlink, *index)
}
