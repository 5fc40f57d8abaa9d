//! Finds the host link of an attachment, also when another program renamed it or cleared its alias. Pure.

use std::collections::HashMap;

use bobbin_ipam::{AttachmentKey, IpPair};

use crate::attachment::{alias, host_name, macs};
use crate::link::Link;
use crate::route::Route;
use crate::settings::Settings;

/// The node's links, ready to look many attachments up.
pub(crate) struct OwnLinks<'a> {
    veths: Vec<&'a Link>,
    by_alias: HashMap<&'a str, Vec<&'a Link>>,
}

impl<'a> OwnLinks<'a> {
    /// Of a list of all links.
    pub(crate) fn of(links: &'a [Link]) -> Self {
        let veths: Vec<&Link> = links.iter().filter(|link| link.kind == "veth").collect();
        let mut by_alias: HashMap<&str, Vec<&Link>> = HashMap::new();
        for link in veths.iter().filter(|link| !link.alias.is_empty()) {
            by_alias.entry(link.alias.as_str()).or_default().push(link);
        }
        Self { veths, by_alias }
    }

    /// The attachment's link: by its alias, then by its name, then by its MAC address, then by a route to its address.
    /// Never a link whose alias names another attachment. `routed` says whether the attachment's address is routed
    /// over the link of an index.
    pub(crate) fn find(
        &self,
        settings: &Settings,
        key: &AttachmentKey,
        routed: impl Fn(u32) -> bool,
    ) -> Option<&'a Link> {
        let (name, (mac, _)) = (host_name(settings, key), macs(key));
        if let Some(labelled) = self.by_alias.get(alias(key).as_str()) {
            return labelled.iter().find(|link| link.name == name).or(labelled.first()).copied();
        }
        let first = |is_it: &dyn Fn(&Link) -> bool| {
            self.veths.iter().find(|link| is_it(link) && link.owner().is_none()).copied()
        };
        first(&|link| is_by_name(link, &name, mac))
            .or_else(|| first(&|link| link.mac == mac))
            .or_else(|| first(&|link| routed(link.index)))
    }
}

/// A name alone is not enough under another program's alias: then the MAC address has to be ours, too.
pub(crate) fn is_by_name(link: &Link, name: &str, mac: [u8; 6]) -> bool {
    link.kind == "veth" && link.name == name && (link.alias.is_empty() || link.mac == mac) && link.owner().is_none()
}

/// Whether a route of ours leads to one of the addresses over the link.
pub(crate) fn is_routed(routes: &[Route], settings: &Settings, pair: IpPair, index: u32) -> bool {
    let ours = |route: &&Route| {
        route.table == settings.pod_table && route.protocol == settings.protocol && route.link == Some(index)
    };
    routes.iter().filter(ours).any(|route| pair.addresses().any(|own| route.to == own.into()))
}

#[cfg(test)]
mod tests;
