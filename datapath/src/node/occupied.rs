//! Networks that the node itself uses: its addresses, its next hops and its connected subnets. A block must not contain
//! an address of these networks. Otherwise the node would route that address to its pods, and lose contact with that
//! network.

use std::fmt;

use ipnet::IpNet;
use nix::libc;

use crate::netlink::link::LOOPBACK;
use crate::netlink::route::Route;
use crate::netlink::{KernelError, Netlink, address, route};

/// The protocols of routes that the node's own configuration adds. Bobbin does not list routes of other protocols,
/// because a routing daemon may add a million routes.
const CONFIGURED: [u8; 5] = [libc::RTPROT_KERNEL, libc::RTPROT_BOOT, libc::RTPROT_STATIC, RTPROT_RA, RTPROT_DHCP];
/// The protocol of routes from router advertisements (`linux/rtnetlink.h`). libc does not have this number.
const RTPROT_RA: u8 = 9;
/// The protocol of routes from DHCP.
const RTPROT_DHCP: u8 = 16;

/// How the node uses a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkUse {
    /// An address of one of the node's links.
    Address,
    /// The next hop of a route.
    NextHop,
    /// A subnet that the node reaches over a link without a next hop.
    Connected,
}

/// A network that the node itself uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OccupiedNet {
    /// How the node uses the network.
    pub used_as: NetworkUse,
    /// The network. A single address has the prefix length 32 or 128.
    pub net: IpNet,
}

impl fmt::Display for OccupiedNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.used_as {
            NetworkUse::Address => write!(f, "the node's address {}", self.net.addr()),
            NetworkUse::NextHop => write!(f, "the next hop {} of one of the node's routes", self.net.addr()),
            NetworkUse::Connected => write!(f, "the connected subnet {} of the node", self.net),
        }
    }
}

/// Lists the networks that the node uses.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<OccupiedNet>, KernelError> {
    let mut found: Vec<OccupiedNet> = address::list(netlink)?
        .into_iter()
        .map(|(_, address)| OccupiedNet { used_as: NetworkUse::Address, net: IpNet::from(address) })
        .collect();
    for protocol in CONFIGURED {
        found.extend(route::list_of(netlink, route::MAIN, protocol)?.iter().filter_map(used_by));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The network that the node uses through a route: the next hop, or the connected subnet.
///
/// Returns `None` for a default route without a next hop, because it leads to no particular subnet. Returns `None` also
/// for a route that drops packets or leads over the loopback link, because such a route reaches no other machine. For
/// example, an administrator may add such a route for a whole pool, so that packets to unused addresses don't loop.
fn used_by(route: &Route) -> Option<OccupiedNet> {
    match (route.via, route.link) {
        (Some(via), _) => Some(OccupiedNet { used_as: NetworkUse::NextHop, net: IpNet::from(via) }),
        (None, Some(link)) if link != LOOPBACK && route.to.prefix_len() > 0 => {
            Some(OccupiedNet { used_as: NetworkUse::Connected, net: route.to })
        }
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(to: &str, link: Option<u32>, via: Option<&str>) -> Option<String> {
        let via = via.map(|via| via.parse().unwrap());
        used_by(&Route::over(route::MAIN, libc::RTPROT_BOOT, to.parse().unwrap(), link, via)).map(|net| net.to_string())
    }

    #[test]
    fn a_route_over_a_link_is_connected_unless_the_link_is_lo_or_the_route_drops_packets() {
        assert_eq!(used("fd00:10::/48", Some(2), None).unwrap(), "the connected subnet fd00:10::/48 of the node");
        assert_eq!(used("fd00:10::/48", Some(LOOPBACK), None), None);
        assert_eq!(used("fd00:10::/48", None, None), None);
        assert_eq!(used("0.0.0.0/0", Some(2), None), None);
    }

    #[test]
    fn of_a_route_with_a_next_hop_the_node_uses_the_next_hop() {
        let what = used("10.64.0.0/16", Some(2), Some("192.0.2.1")).unwrap();
        assert_eq!(what, "the next hop 192.0.2.1 of one of the node's routes");
    }
}
