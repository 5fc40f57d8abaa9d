//! For an ADD, wires the container's side of an attachment. For a CHECK, compares that side with what ADD created.
//!
//! Every function here runs on a thread that has entered the container's namespace, and uses a socket of that
//! namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use bobbin_ipam::IpPair;
use ipnet::IpNet;
use nix::libc;

use crate::names::container_alias;
use crate::netlink::neighbour::{self, Neighbour};
use crate::netlink::route::{self, MAIN, Route};
use crate::netlink::{KernelError, Netlink, Request, add_address, link, list_addresses};
use crate::sysctl;

/// The IPv4 gateway of every pod. No interface has this link-local address; a permanent neighbour entry maps it to the
/// host link's MAC address.
pub const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The IPv6 gateway of every pod. A permanent neighbour entry maps this address to the host link's MAC address.
pub const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The gateway that pods use in the family of this address.
fn gateway(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { GATEWAY_IPV4.into() } else { GATEWAY_IPV6.into() }
}

fn routes(address: IpAddr, index: u32, protocol: u8) -> [Route; 2] {
    let gateway = gateway(address);
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let default = IpNet::new_assert(any, 0);
    [
        Route::over(MAIN, protocol, gateway.into(), Some(index), None),
        Route::over(MAIN, protocol, default, Some(index), Some(gateway)),
    ]
}

/// How long an ADD waits until a pod's address can receive packets. After this time the ADD continues, because the
/// kernel activates the address in any case.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(1);
const ADDRESS_POLL_INTERVAL: Duration = Duration::from_micros(50);
/// Routes over a container's second interface have this number plus the link's index as their metric. The metric is
/// above 1024, the kernel's default for IPv6, so that the first interface's routes take precedence.
const SECONDARY_ROUTE_METRIC: u32 = 2000;

/// The desired state of the container's side.
pub(crate) struct ContainerSide<'a> {
    pub(crate) container_id: &'a str,
    pub(crate) if_name: &'a str,
    pub(crate) index: u32,
    pub(crate) pair: IpPair,
    pub(crate) host_mac: [u8; 6],
    pub(crate) protocol: u8,
}

/// Wires the container's side: sets the sysctls while the link is down, then sends all requests in one datagram.
/// Returns the socket that [`await_addresses`] needs.
pub(crate) fn wire(side: &ContainerSide<'_>, sysctl_root: &Path) -> Result<Netlink, KernelError> {
    let ipv6 = sysctl_root.join("ipv6/conf").join(side.if_name);
    if side.pair.ipv6.is_some() {
        sysctl::set(&ipv6.join("disable_ipv6"), "0")?;
    }
    if side.pair.ipv6.is_some() || ipv6.exists() {
        sysctl::set(&ipv6.join("accept_dad"), "0")?;
        sysctl::set(&ipv6.join("accept_ra"), "0")?;
    }
    let alias = container_alias(side.container_id);
    let mut requests = vec![link::up_with_alias(link::LOOPBACK, &alias), link::up(side.index)];
    for address in side.pair.addresses() {
        requests.push(add_address(side.index, address));
        requests.push(Neighbour::permanent(side.index, gateway(address), side.host_mac).set());
        requests.extend(routes(address, side.index, side.protocol).iter().map(Route::add));
    }
    let mut netlink = Netlink::route()?;
    match netlink.send_all(requests) {
        Err(error) if error.errno() == Some(libc::EEXIST) => netlink.send_all(secondary_routes(side))?,
        done => done?,
    }
    Ok(netlink)
}

/// Waits until the pod's addresses can receive packets. Even with `nodad` the kernel activates an IPv6 address from a
/// work queue (`addrconf_dad_work`). Until then, the kernel drops replies to the pod's first packet.
pub(crate) fn await_addresses(netlink: &mut Netlink, pair: IpPair) -> Result<(), KernelError> {
    let start = Instant::now();
    if let Some(address) = pair.ipv6.map(IpAddr::V6) {
        while !route::is_local(netlink, address)? && start.elapsed() < ADDRESS_TIMEOUT {
            std::thread::sleep(ADDRESS_POLL_INTERVAL);
        }
    }
    Ok(())
}

/// The routes over a container's second interface, for programs that bind to this interface. Other packets use the
/// default route over the first interface, which has a lower metric.
fn secondary_routes(side: &ContainerSide<'_>) -> Vec<Request> {
    let secondary = |route: Route| Route { metric: SECONDARY_ROUTE_METRIC + side.index, ..route }.add();
    side.pair.addresses().flat_map(|address| routes(address, side.index, side.protocol)).map(secondary).collect()
}

/// Compares the container's side with the state that [`wire`] created. Returns each difference as a phrase.
pub(crate) fn mismatches(side: &ContainerSide<'_>, mac: [u8; 6], mtu: u32) -> Result<Vec<String>, KernelError> {
    let mut netlink = Netlink::route()?;
    let Some(link) = link::by_name(&mut netlink, side.if_name)? else {
        return Ok(vec![format!("link {} is missing", side.if_name)]);
    };
    let mut mismatches = Vec::new();
    let name = side.if_name;
    if side.index != 0 && link.index != side.index {
        mismatches.push(format!("link {name} is not the peer of the node's link"));
    }
    if !link.up {
        mismatches.push(format!("link {name} is down"));
    }
    if link.mac != mac {
        mismatches.push(format!("link {name} does not have the MAC address that ADD gave it"));
    }
    if link.mtu != mtu {
        mismatches.push(format!("link {name} has MTU {} instead of {mtu}", link.mtu));
    }
    let addresses = list_addresses(&mut netlink)?;
    let main = route::list(&mut netlink, MAIN)?;
    let neighbours = neighbour::list(&mut netlink)?;
    for address in side.pair.addresses() {
        if !addresses.contains(&(link.index, address)) {
            mismatches.push(format!("address {address} on {name} is missing"));
        }
        for wanted in routes(address, link.index, side.protocol) {
            let matches = |seen: &Route| seen.to == wanted.to && seen.link == wanted.link && seen.via == wanted.via;
            if !main.iter().any(matches) {
                mismatches.push(format!("route {wanted} is missing"));
            }
        }
        let wanted = Neighbour::permanent(link.index, gateway(address), side.host_mac);
        if !neighbours.contains(&wanted) {
            mismatches.push(format!("permanent neighbour {} on {name} is missing", wanted.address));
        }
    }
    Ok(mismatches)
}
