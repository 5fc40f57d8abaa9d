//! One attachment's host link as it should be, and the pairs that nobody finished.

use std::collections::HashSet;

use crate::attach::{host_routes, host_settings};
use crate::attachment::{Wiring, alias, host_name, is_host_name, macs};
use crate::converge::tables::Wanted;
use crate::converge::work::{Owner, Work};
use crate::link::{self, Link};
use crate::neighbour::Neighbour;
use crate::network::{Inner, lock};
use crate::route::Route;
use crate::sysctl;

/// The attachment's routes over its link.
pub(super) fn routes(inner: &Inner, owner: &Owner, pod: &Wiring, index: u32) -> Vec<Wanted> {
    host_routes(inner, pod, index).into_iter().map(|route| Wanted { route, owner: owner.clone() }).collect()
}

/// The MTU is left as it was made: from here only the node's side can be changed (`IFLA_TARGET_NETNSID` in RTM_SETLINK
/// moves a link, it does not reach one elsewhere), and a veth drops what is larger than the receiving side's MTU.
/// Running pods learn of a smaller uplink by path MTU discovery (RFC 1191, RFC 8201).
pub(super) fn repair_link(
    inner: &Inner,
    work: &mut Work<'_>,
    owner: &Owner,
    pod: &Wiring,
    link: &Link,
    neighbours: &[Neighbour],
) {
    let settings = &inner.settings;
    let (host_mac, container_mac) = macs(&pod.key);
    let label = alias(&pod.key);
    if link.alias != label {
        let what = format!("set the alias of {} back to {label}", link.name);
        work.ask(owner, what, link::set_alias(link.index, &label));
    }
    let name = &rename(inner, work, owner, pod, link);
    if link.mac != host_mac {
        work.ask(owner, format!("set the MAC address of {name} back"), link::set_mac(link.index, host_mac));
    }
    if link.group != settings.link_group || (pod.pair.ipv6.is_some() && !link.keeps_no_link_local) {
        let adopt = if pod.pair.ipv6.is_some() { link::adopt } else { link::adopt_without_ipv6 };
        let what = format!("put {name} back into group {} without an address of its own", settings.link_group);
        work.ask(owner, what, adopt(link.index, &label, settings.link_group));
    }
    if !link.up {
        work.ask(owner, format!("brought {name} up again"), link::up(link.index));
    }
    for (path, value) in host_settings(pod, name) {
        match sysctl::set(&settings.sysctl_root.join(&path), value) {
            Ok(false) => {}
            Ok(true) => work.note(owner, format!("set {path} back to {value}"), Ok(())),
            Err(error) => work.note(owner, format!("set {path} back to {value}"), Err(error)),
        }
    }
    for own in pod.pair.addresses() {
        let wanted = Neighbour::permanent(link.index, own, container_mac);
        if !neighbours.contains(&wanted) {
            work.ask(owner, format!("set the permanent neighbour {own} on {name} again"), wanted.set());
        }
    }
}

/// The link's name afterwards. Before Linux 6.2 the kernel renames only links that are down. Taking a running pod's link
/// down would cost its routes, so there it keeps the name: everything else finds it by its alias.
fn rename(inner: &Inner, work: &mut Work<'_>, owner: &Owner, pod: &Wiring, link: &Link) -> String {
    let name = host_name(&inner.settings, &pod.key);
    if link.name == name {
        return name;
    }
    match work.send(link::rename(link.index, &name)) {
        Ok(()) => {
            work.note(owner, format!("renamed {} back to {name}", link.name), Ok(()));
            name
        }
        Err(error) => {
            tracing::debug!(%error, link = link.name, "a pod's link keeps its name");
            link.name.clone()
        }
    }
}

/// Removes pairs whose maker died before it could label them: our name, our group, no alias, never up, no route of
/// ours. A link that lost its alias later is up or routed, and stays.
pub(super) fn sweep_half_made(
    inner: &Inner,
    work: &mut Work<'_>,
    links: &[Link],
    known: &HashSet<u32>,
    routes: &[Route],
) {
    let settings = &inner.settings;
    let half_made = |link: &Link| {
        let ours = link.kind == "veth" && link.group == settings.link_group && is_host_name(settings, &link.name);
        ours && link.alias.is_empty() && !link.up
    };
    let carries = |link: &Link| routes.iter().any(|route| route.link == Some(link.index));
    for link in links.iter().filter(|link| half_made(link) && !known.contains(&link.index) && !carries(link)) {
        // One that is being made by now was not there, or was busy, when the list was read: look again at both.
        if lock(&inner.under_way).contains_key(&link.name) {
            continue;
        }
        let still = link::by_index(work.netlink, link.index);
        if still.is_ok_and(|still| still.is_some_and(|still| half_made(&still) && still.name == link.name)) {
            let what = format!("removed {}, a link that was only half made", link.name);
            let removed = link::remove(work.netlink, &inner.echoes, link.index);
            work.note(&Owner::node(), what, removed);
        }
    }
}
