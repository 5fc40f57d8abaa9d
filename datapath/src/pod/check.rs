//! Compares an attachment with what ADD created. The comparison reports each difference and repairs nothing.

use std::fmt;
use std::os::fd::OwnedFd;

use crate::names::{alias, host_name, macs};
use crate::netlink::neighbour::{self, Neighbour};
use crate::netlink::{KernelError, Netlink, anti_spoofing, link, route, rule};
use crate::netns;
use crate::pod::attach::AttachError;
use crate::pod::attachment::Wiring;
use crate::pod::container::{self, ContainerSide};
use crate::pod::host_link::{self, LinkIndex};
use crate::state::State;
use crate::sysctl;

/// One difference from what ADD created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Whether the difference is on the node's side; otherwise it is in the container.
    pub on_node: bool,
    /// The difference, as a phrase: "route 10.0.0.5/32 over link 7 in table 116 is missing".
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.on_node { "on the node" } else { "in the container" }, self.what)
    }
}

/// Compares an attachment with the state that ADD created, on the node and in the container. Returns the differences.
pub(crate) fn check(state: &State, wiring: &Wiring, netns: &OwnedFd) -> Result<Vec<Mismatch>, AttachError> {
    let gone = |source| AttachError::NetnsGone { attachment: wiring.key.to_string(), source };
    if netns::identity(netns).map_err(gone)? == state.node_netns {
        return Err(AttachError::HostNetns(wiring.key.to_string()));
    }
    let (mut mismatches, peer, mtu) = state.with_netlink(|netlink| node_side(state, netlink, wiring))?;
    netns::enter(netns).map_err(gone)?;
    let (host_mac, container_mac) = macs(&wiring.key);
    let side = ContainerSide {
        container_id: &wiring.key.container_id,
        if_name: &wiring.key.if_name,
        index: peer,
        pair: wiring.pair,
        host_mac,
        protocol: state.settings.protocol,
    };
    let inside = container::mismatches(&side, container_mac, mtu)?;
    mismatches.extend(inside.into_iter().map(|what| Mismatch { on_node: false, what }));
    Ok(mismatches)
}

/// Returns the mismatches on the node, the peer's link index (0 if unknown), and the MTU that both sides should have.
fn node_side(state: &State, netlink: &mut Netlink, wiring: &Wiring) -> Result<(Vec<Mismatch>, u32, u32), KernelError> {
    let settings = &state.settings;
    let mut mismatches = Vec::new();
    let mut note = |what: String| mismatches.push(Mismatch { on_node: true, what });
    let name = host_name(settings, &wiring.key);
    let mut peer = 0;
    let mut mtu = state.known_mtu(netlink, &wiring.node_addresses())?;
    let routes = route::list(netlink, settings.pod_table)?;
    let links = link::list(netlink)?;
    let is_routed = |index| host_link::is_routed(&routes, settings, wiring.pair, index);
    let link = LinkIndex::of(&links).find(settings, &wiring.key, is_routed);
    match link {
        None => note(format!("link {name} is missing")),
        Some(link) => {
            peer = link.peer;
            mtu = link.mtu;
            if link.alias != alias(&wiring.key) {
                note(format!("link {} has lost its alias", link.name));
            }
            if !link.up {
                note(format!("link {name} is down"));
            }
            if link.group != settings.link_group {
                note(format!("link {name} is in group {} instead of {}", link.group, settings.link_group));
            }
            for (path, value) in host_link::sysctls(wiring, &link.name) {
                if sysctl::get(&settings.sysctl_root.join(&path))? != value {
                    note(format!("sysctl {path} is not {value}"));
                }
            }
        }
    }
    let index = link.map_or(0, |link| link.index);
    for wanted in host_link::routes(settings, wiring, index) {
        if !routes.iter().any(|route| route.satisfies(&wanted)) {
            note(format!("route {wanted} is missing"));
        }
    }
    let neighbours = neighbour::list(netlink)?;
    for address in wiring.pair.addresses() {
        if !neighbours.contains(&Neighbour::permanent(index, address, macs(&wiring.key).1)) {
            note(format!("permanent neighbour {address} on {name} is missing"));
        }
    }
    let rules = rule::list(netlink)?;
    for wanted in rule::wanted(settings, wiring.pair.ipv4.is_some(), wiring.pair.ipv6.is_some()) {
        if !rules.contains(&wanted) {
            note(format!("rule {wanted} is missing"));
        }
    }
    if !anti_spoofing::is_in_place(&mut Netlink::netfilter()?, settings)? {
        note(format!("the anti-spoofing filter (nftables table inet {}) is missing or changed", settings.nft_table));
    }
    Ok((mismatches, peer, mtu))
}
