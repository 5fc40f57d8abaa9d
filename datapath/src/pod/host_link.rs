//! The host link of an attachment: finding it, even under another name or alias, and its sysctls and routes.

use std::collections::HashMap;
use std::net::IpAddr;

use bobbin_ipam::{AttachmentKey, IpPair};

use crate::names::{alias, host_name, macs};
use crate::netlink::link::Link;
use crate::netlink::route::Route;
use crate::pod::attachment::Wiring;
use crate::settings::Settings;

/// The sysctls of a host link: paths below the sysctl root, with the values to set.
pub(crate) fn sysctls(wiring: &Wiring, host_if: &str) -> Vec<(String, &'static str)> {
    let mut sysctls = Vec::new();
    if wiring.pair.ipv4.is_some() {
        sysctls.push((format!("ipv4/conf/{host_if}/proxy_arp"), "0"));
        sysctls.push((format!("ipv4/conf/{host_if}/forwarding"), "1"));
    }
    if wiring.pair.ipv6.is_some() {
        sysctls.push((format!("ipv6/conf/{host_if}/disable_ipv6"), "0"));
        sysctls.push((format!("ipv6/conf/{host_if}/forwarding"), "1"));
    }
    sysctls
}

/// The routes on the node to the pod's addresses.
pub(crate) fn routes(settings: &Settings, wiring: &Wiring, index: u32) -> Vec<Route> {
    let route_to = |address| {
        let source = match address {
            IpAddr::V4(_) => wiring.node_ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => wiring.node_ipv6.map(IpAddr::V6),
        };
        Route::to_pod(settings.pod_table, settings.protocol, address, index, source)
    };
    wiring.pair.addresses().map(route_to).collect()
}

/// Lookup tables of the node's links, to find the links of many attachments quickly.
pub(crate) struct LinkIndex<'a> {
    veths: Vec<&'a Link>,
    by_alias: HashMap<&'a str, Vec<&'a Link>>,
}

impl<'a> LinkIndex<'a> {
    /// Indexes a list of all links on the node.
    pub(crate) fn of(links: &'a [Link]) -> Self {
        let veths: Vec<&Link> = links.iter().filter(|link| link.is_veth()).collect();
        let mut by_alias: HashMap<&str, Vec<&Link>> = HashMap::new();
        for link in veths.iter().filter(|link| !link.alias.is_empty()) {
            by_alias.entry(link.alias.as_str()).or_default().push(link);
        }
        Self { veths, by_alias }
    }

    /// Finds an attachment's link: first by alias, then by name, then by MAC address, and last by a route to the
    /// attachment's address. A link with another attachment's key in its alias never matches. `is_routed` says
    /// whether a route to the attachment's address leads over the link with this index.
    pub(crate) fn find(
        &self,
        settings: &Settings,
        key: &AttachmentKey,
        is_routed: impl Fn(u32) -> bool,
    ) -> Option<&'a Link> {
        let (name, (mac, _)) = (host_name(settings, key), macs(key));
        if let Some(labelled) = self.by_alias.get(alias(key).as_str()) {
            return labelled.iter().find(|link| link.name == name).or(labelled.first()).copied();
        }
        let first = |matches: &dyn Fn(&Link) -> bool| {
            self.veths.iter().find(|link| matches(link) && link.owner().is_none()).copied()
        };
        first(&|link| has_name(link, &name, mac))
            .or_else(|| first(&|link| link.mac == mac))
            .or_else(|| first(&|link| is_routed(link.index)))
    }
}

/// Whether the link has this name. If another program set the link's alias, the MAC address must match, too.
fn has_name(link: &Link, name: &str, mac: [u8; 6]) -> bool {
    link.is_veth() && link.name == name && (link.alias.is_empty() || link.mac == mac) && link.owner().is_none()
}

/// Whether one of Bobbin's routes leads to one of the attachment's addresses over this link.
pub(crate) fn is_routed(routes: &[Route], settings: &Settings, pair: IpPair, index: u32) -> bool {
    let over_link = |route: &&Route| {
        route.table == settings.pod_table && route.protocol == settings.protocol && route.link == Some(index)
    };
    routes.iter().filter(over_link).any(|route| pair.addresses().any(|address| route.to == address.into()))
}

#[cfg(test)]
mod tests;
