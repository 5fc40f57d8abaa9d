//! Networks that the node itself uses: its addresses, its next hops and its connected subnets. A block with one of their
//! addresses would cut the node off.

use std::fmt;

use ipnet::IpNet;
use nix::libc;

use crate::netlink::{KernelError, Netlink, address, route};

/// The protocols of routes that the node's own configuration adds. Routes of other protocols, for example those of a routing
/// daemon, are not listed: there may be a million of them.
const CONFIGURED: [u8; 5] = [libc::RTPROT_KERNEL, libc::RTPROT_BOOT, libc::RTPROT_STATIC, RTPROT_RA, RTPROT_DHCP];
/// Routes from router advertisements (`linux/rtnetlink.h`; libc does not have the number).
const RTPROT_RA: u8 = 9;
/// Routes from DHCP.
const RTPROT_DHCP: u8 = 16;

/// How the node uses a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
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
    pub used_as: Use,
    /// The network. A single address has the prefix length 32 or 128.
    pub net: IpNet,
}

impl fmt::Display for OccupiedNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.used_as {
            Use::Address => write!(f, "the node's address {}", self.net.addr()),
            Use::NextHop => write!(f, "the next hop {} of a route of the node", self.net.addr()),
            Use::Connected => write!(f, "the connected subnet {} of the node", self.net),
        }
    }
}

/// Lists the networks that the node uses. Loopback and link-local networks are left out, because no pool contains them.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<OccupiedNet>, KernelError> {
    let mut found: Vec<OccupiedNet> = address::list(netlink)?
        .into_iter()
        .map(|(_, address)| OccupiedNet { used_as: Use::Address, net: IpNet::from(address) })
        .collect();
    for protocol in CONFIGURED {
        for route in route::list_of(netlink, route::MAIN, protocol)? {
            match (route.via, route.link) {
                (Some(via), _) => found.push(OccupiedNet { used_as: Use::NextHop, net: IpNet::from(via) }),
                (None, Some(_)) if !route.blackhole && route.to.prefix_len() > 0 => {
                    found.push(OccupiedNet { used_as: Use::Connected, net: route.to });
                }
                (None, _) => {}
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
