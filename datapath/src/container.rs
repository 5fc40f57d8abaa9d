//! The container's side of an attachment: what is set there, and what of it is missing later.
//!
//! Every function runs on a thread that has entered the container's namespace, with a socket opened there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use bobbin_ipam::IpPair;
use ipnet::IpNet;

use crate::attachment::container_alias;
use crate::neighbour::Neighbour;
use crate::route::{MAIN, Route};
use crate::socket::{Ask, KernelError, Netlink};
use crate::{address, link, neighbour, route, sysctl};

/// The pod's IPv4 gateway: link-local, nobody's address, answered by a permanent neighbour.
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pod's IPv6 gateway.
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The gateway of an address's family.
pub(crate) fn gateway(own: IpAddr) -> IpAddr {
    if own.is_ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() }
}

fn routes(own: IpAddr, index: u32, protocol: u8) -> [Route; 2] {
    let gateway = gateway(own);
    let all =
        IpNet::new_assert(if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }, 0);
    [
        Route::over(MAIN, protocol, gateway.into(), Some(index), None),
        Route::over(MAIN, protocol, all, Some(index), Some(gateway)),
    ]
}

/// How long an address may take until it can receive; it comes in any case.
const RECEIVES: Duration = Duration::from_secs(1);
/// The metric of a second interface's routes, its index added: above the 1024 that the kernel gives IPv6 routes by itself.
const BEHIND: u32 = 2000;

/// What the container's side is made from.
pub(crate) struct Side<'a> {
    pub(crate) container_id: &'a str,
    pub(crate) if_name: &'a str,
    pub(crate) index: u32,
    pub(crate) pair: IpPair,
    pub(crate) host_mac: [u8; 6],
    pub(crate) protocol: u8,
}

/// Makes the container's side: sysctls before the link is up, then all the rest in one datagram. Answers the socket for [`await_addresses`].
pub(crate) fn wire(side: &Side<'_>, sysctl_root: &Path) -> Result<Netlink, KernelError> {
    let ipv6 = sysctl_root.join("ipv6/conf").join(side.if_name);
    if side.pair.ipv6.is_some() {
        sysctl::set(&ipv6.join("disable_ipv6"), "0")?;
    }
    if side.pair.ipv6.is_some() || ipv6.exists() {
        sysctl::set(&ipv6.join("accept_dad"), "0")?;
        sysctl::set(&ipv6.join("accept_ra"), "0")?;
    }
    let mut asks: Vec<Ask> =
        vec![link::up_as(link::LOOPBACK, &container_alias(side.container_id)), link::up(side.index)];
    for own in side.pair.addresses() {
        asks.push(address::add(side.index, own));
        asks.push(Neighbour::permanent(side.index, gateway(own), side.host_mac).set());
        asks.extend(routes(own, side.index, side.protocol).iter().map(Route::add));
    }
    let mut netlink = Netlink::route()?;
    match netlink.all(asks) {
        Err(error) if error.errno() == Some(nix::libc::EEXIST) => netlink.all(routes_behind(side))?,
        done => done?,
    }
    Ok(netlink)
}

/// The kernel lets an IPv6 address receive from a work queue, `nodad` or not (addrconf_dad_work): until then the answer to the
/// pod's first packet would be dropped. On an idle machine it is done before we look.
pub(crate) fn await_addresses(netlink: &mut Netlink, pair: IpPair) -> Result<(), KernelError> {
    let start = Instant::now();
    if let Some(own) = pair.ipv6.map(IpAddr::V6) {
        while !route::is_local(netlink, own)? && start.elapsed() < RECEIVES {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(())
}

/// The routes of a container's second interface: its first keeps the default route, and these serve who binds to the second.
fn routes_behind(side: &Side<'_>) -> Vec<Ask> {
    let behind = |route: Route| Route { metric: BEHIND + side.index, ..route }.add();
    side.pair.addresses().flat_map(|own| routes(own, side.index, side.protocol)).map(behind).collect()
}

/// What of the container's side is not as [`wire`] made it, each as a phrase.
pub(crate) fn misses(side: &Side<'_>, mac: [u8; 6], mtu: u32) -> Result<Vec<String>, KernelError> {
    let mut netlink = Netlink::route()?;
    let Some(link) = link::by_name(&mut netlink, side.if_name)? else {
        return Ok(vec![format!("link {} is missing", side.if_name)]);
    };
    let mut missing = Vec::new();
    let name = side.if_name;
    if side.index != 0 && link.index != side.index {
        missing.push(format!("link {name} is not the peer of the node's link"));
    }
    if !link.up {
        missing.push(format!("link {name} is down"));
    }
    if link.mac != mac {
        missing.push(format!("link {name} has another MAC address than ADD gave it"));
    }
    if link.mtu != mtu {
        missing.push(format!("link {name} has MTU {} instead of {mtu}", link.mtu));
    }
    let addresses = address::list(&mut netlink)?;
    let main = route::list(&mut netlink, MAIN)?;
    let neighbours = neighbour::list(&mut netlink)?;
    for own in side.pair.addresses() {
        if !addresses.contains(&(link.index, own)) {
            missing.push(format!("address {own} on {name} is missing"));
        }
        for wanted in routes(own, link.index, side.protocol) {
            let there = |seen: &Route| seen.to == wanted.to && seen.link == wanted.link && seen.via == wanted.via;
            if !main.iter().any(there) {
                missing.push(format!("route {wanted} is missing"));
            }
        }
        let wanted = Neighbour::permanent(link.index, gateway(own), side.host_mac);
        if !neighbours.contains(&wanted) {
            missing.push(format!("permanent neighbour {} on {name} is missing", wanted.address));
        }
    }
    Ok(missing)
}
