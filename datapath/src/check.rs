//! Compares one attachment with what ADD made: each thing that is missing is named. Repairs nothing.

use std::fmt;
use std::os::fd::OwnedFd;

use crate::attach::{AttachError, host_routes, host_settings, node_addresses};
use crate::attachment::{Wiring, alias, host_name, macs};
use crate::container::{self, Side};
use crate::neighbour::{self, Neighbour};
use crate::netns::{self, on_thread};
use crate::network::{Inner, Network};
use crate::own_link::{self, OwnLinks};
use crate::prepare::families;
use crate::rule::{self, Rule};
use crate::socket::{KernelError, Netlink};
use crate::{link, route, spoof, sysctl};

/// One thing that is not as ADD made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Whether it is on the node (else in the container).
    pub on_node: bool,
    /// What, as a phrase: "route 10.0.0.5/32 over link 7 in table 116 is missing".
    pub what: String,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.on_node { "on the node" } else { "in the container" }, self.what)
    }
}

impl Network {
    /// What of an attachment is not as [`Network::attach`] made it, on both sides. Empty: all is well.
    pub async fn check(&self, wiring: &Wiring, netns: OwnedFd) -> Result<Vec<Miss>, AttachError> {
        let inner = self.inner.clone();
        let wiring = wiring.clone();
        on_thread(move || {
            let gone = |source| AttachError::NetnsGone { attachment: wiring.key.to_string(), source };
            if netns::identity(&netns).map_err(gone)? == inner.home {
                return Err(AttachError::HostNetns(wiring.key.to_string()));
            }
            let (mut misses, peer, mtu) = inner.with_netlink(|netlink| node_side(&inner, netlink, &wiring))?;
            netns::enter(&netns).map_err(gone)?;
            let (host_mac, container_mac) = macs(&wiring.key);
            let side = Side {
                container_id: &wiring.key.container_id,
                if_name: &wiring.key.if_name,
                index: peer,
                pair: wiring.pair,
                host_mac,
                protocol: inner.settings.protocol,
            };
            let inside = container::misses(&side, container_mac, mtu)?;
            misses.extend(inside.into_iter().map(|what| Miss { on_node: false, what }));
            Ok(misses)
        })
        .await
    }
}

/// The misses on the node, the index of the peer (0: unknown) and the MTU both sides should have.
fn node_side(inner: &Inner, netlink: &mut Netlink, wiring: &Wiring) -> Result<(Vec<Miss>, u32, u32), KernelError> {
    let settings = &inner.settings;
    let mut misses = Vec::new();
    let mut miss = |what: String| misses.push(Miss { on_node: true, what });
    let name = host_name(settings, &wiring.key);
    let mut peer = 0;
    let mut mtu = inner.known_mtu(netlink, &node_addresses(wiring))?;
    let routes = route::list(netlink, settings.pod_table)?;
    let links = link::list(netlink)?;
    let carries = |index| own_link::is_routed(&routes, settings, wiring.pair, index);
    let link = OwnLinks::of(&links).find(settings, &wiring.key, carries);
    match link {
        None => miss(format!("link {name} is missing")),
        Some(link) => {
            peer = link.peer;
            mtu = link.mtu;
            if link.alias != alias(&wiring.key) {
                miss(format!("link {} has lost its alias", link.name));
            }
            if !link.up {
                miss(format!("link {name} is down"));
            }
            if link.group != settings.link_group {
                miss(format!("link {name} is in group {} instead of {}", link.group, settings.link_group));
            }
            for (path, value) in host_settings(wiring, &link.name) {
                if sysctl::get(&settings.sysctl_root.join(&path))? != value {
                    miss(format!("setting {path} is not {value}"));
                }
            }
        }
    }
    let index = link.map_or(0, |link| link.index);
    for wanted in host_routes(inner, wiring, index) {
        if !routes.contains(&wanted) {
            miss(format!("route {wanted} is missing"));
        }
    }
    let neighbours = neighbour::list(netlink)?;
    for own in wiring.pair.addresses() {
        if !neighbours.contains(&Neighbour::permanent(index, own, macs(&wiring.key).1)) {
            miss(format!("permanent neighbour {own} on {name} is missing"));
        }
    }
    let rules = rule::list(netlink)?;
    for ipv6 in families(wiring.pair.ipv4.is_some(), wiring.pair.ipv6.is_some()) {
        let wanted = Rule::ours(settings, ipv6);
        if !rules.contains(&wanted) {
            miss(format!("rule {wanted} is missing"));
        }
    }
    if !spoof::is_right(&mut Netlink::netfilter()?, settings)? {
        miss(format!("the spoof filter (nftables table inet {}) is missing", settings.nft_table));
    }
    Ok((misses, peer, mtu))
}
