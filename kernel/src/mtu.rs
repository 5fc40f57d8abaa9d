//! The MTU of pods' links: the setting, else the uplink's, within what both families allow.

use std::net::IpAddr;

use crate::address;
use crate::link::{self, Link};
use crate::route::{self, MAIN};
use crate::settings::Settings;
use crate::socket::{KernelError, Netlink};

const LEAST: u32 = 1280;
const MOST: u32 = 65535;
const USUAL: u32 = 1500;

/// The MTU pods get: the setting, else that of the link of the default route (the lowest metric first, IPv4 before
/// IPv6), else that of the link with a node address, else 1500; never below 1280 or above 65535.
pub(crate) fn detect(netlink: &mut Netlink, settings: &Settings, node: &[IpAddr]) -> Result<u32, KernelError> {
    if let Some(mtu) = settings.mtu {
        return Ok(mtu.clamp(LEAST, MOST));
    }
    let uplink = uplink(netlink, node)?;
    Ok(uplink.map_or(USUAL, |link| link.mtu).clamp(LEAST, MOST))
}

fn uplink(netlink: &mut Netlink, node: &[IpAddr]) -> Result<Option<Link>, KernelError> {
    let mut defaults: Vec<_> = route::list(netlink, MAIN)?
        .into_iter()
        .filter(|route| route.to.prefix_len() == 0 && !route.blackhole)
        .collect();
    defaults.sort_by_key(|route| (route.to.addr().is_ipv6(), route.metric));
    for index in defaults.iter().filter_map(|route| route.link) {
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
