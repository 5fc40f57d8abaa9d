//! The MTU of pods' links: the setting, else the uplink's, within what both families allow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address;
use crate::link::{self, Link};
use crate::route;
use crate::settings::Settings;
use crate::socket::{KernelError, Netlink};

/// Addresses that no network has of its own: the dummy address of RFC 7600 and one of the documentation prefix. Looking
/// one up costs the same whatever the size of the table; listing a table that BGP fills does not.
const FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 8);
const LEAST: u32 = 1280;
const MOST: u32 = 65535;
const USUAL: u32 = 1500;

/// The MTU pods get: the setting, else that of the link that leads to the rest of the world (IPv4 before IPv6), else that of the link with a node address, else 1500; never below 1280 or above 65535.
pub(crate) fn detect(netlink: &mut Netlink, settings: &Settings, node: &[IpAddr]) -> Result<u32, KernelError> {
    if let Some(mtu) = settings.mtu {
        return Ok(mtu.clamp(LEAST, MOST));
    }
    let uplink = uplink(netlink, node)?;
    Ok(uplink.map_or(USUAL, |link| link.mtu).clamp(LEAST, MOST))
}

fn uplink(netlink: &mut Netlink, node: &[IpAddr]) -> Result<Option<Link>, KernelError> {
    for far in [FAR_V4.into(), FAR_V6.into()] {
        let Some(index) = route::link_to(netlink, far)? else { continue };
        if let Some(link) = link::by_index(netlink, index)?.filter(|link| link.index != link::LOOPBACK) {
            return Ok(Some(link));
        }
    }
    let addresses = address::list(netlink)?;
    let Some((index, _)) = addresses.iter().find(|(index, own)| *index != link::LOOPBACK && node.contains(own)) else {
        return Ok(None);
    };
    link::by_index(netlink, *index)
}
