//! Corrects an attachment's host link, and removes veth pairs that an interrupted ADD left behind.

use std::collections::HashSet;

use crate::names::{alias, host_name, is_host_name, macs};
use crate::netlink::link::{self, Link};
use crate::netlink::neighbour::Neighbour;
use crate::netlink::route::Route;
use crate::node::reconcile::pass::{Owner, Pass};
use crate::node::reconcile::routes::WantedRoute;
use crate::pod::attachment::Wiring;
use crate::pod::host_link;
use crate::settings::Settings;
use crate::sysctl;

/// The routes that should exist over an attachment's host link.
pub(super) fn wanted_routes(settings: &Settings, owner: &Owner, pod: &Wiring, index: u32) -> Vec<WantedRoute> {
    host_link::routes(settings, pod, index)
        .into_iter()
        .map(|route| WantedRoute { route, owner: owner.clone() })
        .collect()
}

/// Corrects the host link, except its MTU. Both sides of a veth pair need the same MTU, because a veth drops packets
/// above the receiver's MTU. But the pass can change only the node's side. Running pods learn of a smaller uplink MTU
/// through path MTU discovery (RFC 1191, RFC 8201).
pub(super) fn repair_link(pass: &mut Pass<'_>, owner: &Owner, pod: &Wiring, link: &Link, neighbours: &[Neighbour]) {
    let settings = &pass.state.settings;
    let (host_mac, container_mac) = macs(&pod.key);
    let label = alias(&pod.key);
    if link.alias != label {
        let what = format!("restored the alias {label} of {}", link.name);
        pass.correct(owner, what, link::set_alias(link.index, &label));
    }
    let name = &rename(pass, owner, pod, link);
    if link.mac != host_mac {
        pass.correct(owner, format!("restored the MAC address of {name}"), link::set_mac(link.index, host_mac));
    }
    if link.group != settings.link_group || (pod.pair.ipv6.is_some() && !link.has_no_link_local) {
        let label_request = if pod.pair.ipv6.is_some() { link::label } else { link::label_without_ipv6 };
        let what = format!("moved {name} back to group {} and turned its link-local address off", settings.link_group);
        pass.correct(owner, what, label_request(link.index, &label, settings.link_group));
    }
    if !link.up {
        pass.correct(owner, format!("brought {name} up"), link::up(link.index));
    }
    for (path, value) in host_link::sysctls(pod, name) {
        match sysctl::set(&settings.sysctl_root.join(&path), value) {
            Ok(false) => {}
            Ok(true) => pass.note(owner, format!("restored the sysctl {path} to {value}"), Ok(())),
            Err(error) => pass.note(owner, format!("restored the sysctl {path} to {value}"), Err(error)),
        }
    }
    for address in pod.pair.addresses() {
        let wanted = Neighbour::permanent(link.index, address, container_mac);
        if !neighbours.contains(&wanted) {
            pass.correct(owner, format!("restored the permanent neighbour {address} on {name}"), wanted.set());
        }
    }
}

/// Restores the host link's name, and returns the name that the link then has. Before Linux 6.2, the kernel renames
/// only links that are down, and taking a link down would remove the pod's routes. So on an older kernel the link keeps
/// the changed name, and Bobbin finds it by its alias.
fn rename(pass: &mut Pass<'_>, owner: &Owner, pod: &Wiring, link: &Link) -> String {
    let name = host_name(&pass.state.settings, &pod.key);
    if link.name == name {
        return name;
    }
    match pass.send(link::rename(link.index, &name)) {
        Ok(()) => {
            pass.note(owner, format!("renamed {} back to {name}", link.name), Ok(()));
            name
        }
        Err(error) => {
            tracing::debug!(%error, link = link.name, "the kernel refused to rename a pod's link, so the link keeps its changed name; the agent finds the link by its alias");
            link.name.clone()
        }
    }
}

/// Removes veth pairs that an ADD created but did not label. An unlabelled pair has Bobbin's name and group, but no
/// alias and no route, and is down. If a pod's link lost its alias after the ADD, the link is up or has routes, so the
/// pass keeps it.
pub(super) fn remove_half_created(pass: &mut Pass<'_>, links: &[Link], known: &HashSet<u32>, routes: &[Route]) {
    let state = pass.state;
    let settings = &state.settings;
    let is_half_created = |link: &Link| {
        let own = link.is_veth() && link.group == settings.link_group && is_host_name(settings, &link.name);
        own && link.alias.is_empty() && !link.up
    };
    let is_routed = |link: &Link| routes.iter().any(|route| route.link == Some(link.index));
    for link in links.iter().filter(|link| is_half_created(link) && !known.contains(&link.index) && !is_routed(link)) {
        // An ADD may have begun since the pass listed the links. So read the links in flight and this link again.
        if state.in_flight.contains(&link.name) {
            continue;
        }
        let now = link::by_index(pass.netlink, link.index);
        if now.is_ok_and(|now| now.is_some_and(|now| is_half_created(&now) && now.name == link.name)) {
            let what = format!("removed {}, a link that an interrupted ADD left behind", link.name);
            let removed = link::remove(pass.netlink, &state.own_changes, link.index);
            pass.note(&Owner::node(), what, removed);
        }
    }
}
