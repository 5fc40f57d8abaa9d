//! Compares the node with what should be there and repairs what is ours. Never touches what is not.
//!
//! Called at start, on the monitor's hints and every minute. Each repair is reported; the agent counts them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bobbin_addressing::BlockRange;
use ipnet::IpNet;

use crate::attach::{host_routes, host_settings, node_addresses};
use crate::attachment::{Wiring, alias, host_name, is_host_name, macs};
use crate::link::Link;
use crate::neighbour::{self, Neighbour};
use crate::netns::on_thread;
use crate::network::{Inner, Network, lock};
use crate::route::{self, MAIN, Route};
use crate::socket::{Ask, KernelError, Netlink, is_gone};
use crate::{clash, export, link, prepare, sysctl};

/// What should be there.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The node's claimed blocks.
    pub blocks: Vec<BlockRange>,
    /// `blocks` may lack some of the node's: then no block's routes are removed.
    pub blocks_may_lack: bool,
    /// The node's live attachments.
    pub pods: Vec<Wiring>,
    /// With `--routing=direct`: the other nodes' blocks. `None`: not known yet, what is there stays.
    pub direct: Option<Vec<DirectRoute>>,
    /// Whether the node uses IPv4.
    pub ipv4: bool,
    /// Whether the node uses IPv6.
    pub ipv6: bool,
}

/// Another node's block and how to get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectRoute {
    /// The block.
    pub block: BlockRange,
    /// That node's IPv4 address.
    pub via4: Option<Ipv4Addr>,
    /// That node's IPv6 address.
    pub via6: Option<Ipv6Addr>,
}

/// One thing that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What was done, or why it could not be done: one sentence.
    pub what: String,
    /// Whether it is right now.
    pub repaired: bool,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Network {
    /// Makes the node as it should be and says what it repaired. Attachments whose link is missing are reported, not
    /// made: that takes an ADD. Links being wired or removed at this moment are passed over.
    pub async fn converge(&self, desired: &Desired) -> Result<Vec<Repair>, KernelError> {
        let inner = self.inner.clone();
        let desired = desired.clone();
        on_thread(move || inner.with_netlink(|netlink| converge(&inner, netlink, &desired))).await
    }
}

/// What was repaired so far, and the socket to repair with.
struct Work<'a> {
    netlink: &'a mut Netlink,
    repairs: Vec<Repair>,
}

impl Work<'_> {
    fn note(&mut self, what: String, result: Result<(), KernelError>) {
        let repair = match result {
            Ok(()) => Repair { what, repaired: true },
            Err(error) => Repair { what: format!("could not repair this: {what}: {error}"), repaired: false },
        };
        self.repairs.push(repair);
    }

    fn ask(&mut self, what: String, ask: Ask) {
        let result = self.netlink.one(ask.what, ask.message).map(drop);
        self.note(what, result);
    }

    /// Adds a route; somebody of ours who was quicker is no repair.
    fn add(&mut self, what: String, ask: Ask) {
        let result = self.netlink.one(ask.what, ask.message).map(drop);
        if !result.as_ref().is_err_and(|error| error.errno() == Some(nix::libc::EEXIST)) {
            self.note(what, result);
        }
    }

    /// Removes something; what is gone by itself is no repair.
    fn remove(&mut self, what: String, ask: Ask) {
        match self.netlink.one(ask.what, ask.message).map(drop) {
            Err(error) if is_gone(&error) => {}
            result => self.note(what, result),
        }
    }
}

fn converge(inner: &Inner, netlink: &mut Netlink, desired: &Desired) -> Result<Vec<Repair>, KernelError> {
    let settings = &inner.settings;
    let prepared = prepare::prepare(inner, netlink, desired.ipv4, desired.ipv6)?;
    let repairs = prepared.into_iter().map(|what| Repair { what, repaired: true }).collect();
    let mut work = Work { netlink, repairs };
    let nodes: Vec<IpAddr> = desired.pods.first().map(node_addresses).unwrap_or_default();
    inner.look_up_mtu(work.netlink, &nodes)?;
    // The tables are read first, then who is at work, then the links: a route seen without its link is really stale.
    let mut there = route::list(work.netlink, settings.pod_table)?;
    there.extend(route::list(work.netlink, settings.export_table)?);
    let main = route::list(work.netlink, MAIN)?;
    let busy: HashSet<String> = lock(&inner.under_way).keys().cloned().collect();
    let links = link::list(work.netlink)?;
    let by_name: HashMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let neighbours = neighbour::list(work.netlink)?;
    let mut wanted: Vec<Route> =
        blocks(inner, desired).iter().flat_map(|block| export::routes(settings, block)).collect();
    for pod in &desired.pods {
        let name = host_name(settings, &pod.key);
        if busy.contains(&name) {
            continue;
        }
        match by_name.get(name.as_str()).filter(|link| link.alias == alias(&pod.key)) {
            None => {
                let what = format!("link {name} of {} ({}) is missing; the pod has to be made anew", pod.key, pod.pair);
                work.repairs.push(Repair { what, repaired: false });
            }
            Some(link) => {
                wanted.extend(host_routes(inner, pod, link.index));
                repair_link(inner, &mut work, pod, link, &neighbours);
            }
        }
    }
    // Attachments the caller does not list (yet) keep their routes: what is wired is in use until it is detached.
    let listed: HashSet<String> = desired.pods.iter().map(|pod| alias(&pod.key)).collect();
    let unlisted = |link: &&Link| busy.contains(&link.name) || (link.is_ours() && !listed.contains(&link.alias));
    let passed_over: HashSet<u32> = links.iter().filter(unlisted).map(|link| link.index).collect();
    sweep_half_made(inner, &mut work, &links, &busy);
    let block_stays =
        |route: &Route| desired.blocks_may_lack && (route.blackhole || route.link == Some(link::LOOPBACK));
    let keep = |route: &Route| block_stays(route) || route.link.is_some_and(|index| passed_over.contains(&index));
    repair_table(&mut work, &there, settings.protocol, &wanted, keep);
    if let Some(direct) = &desired.direct {
        let direct: Vec<Route> = direct.iter().flat_map(|one| direct_routes(inner, one)).collect();
        repair_table(&mut work, &main, settings.direct_protocol, &direct, |_| false);
    }
    *lock(&inner.warnings) = clash::find(work.netlink, settings)?;
    Ok(work.repairs)
}

/// The blocks to show: the caller's list, corrected by what was exported and withdrawn since it was made.
fn blocks(inner: &Inner, desired: &Desired) -> HashSet<BlockRange> {
    let mut blocks: HashSet<BlockRange> = desired.blocks.iter().copied().collect();
    for (block, shown) in lock(&inner.exported).iter() {
        if *shown {
            blocks.insert(*block)
        } else {
            blocks.remove(block)
        };
    }
    blocks
}

fn direct_routes(inner: &Inner, direct: &DirectRoute) -> Vec<Route> {
    let pairs = [
        (direct.block.ipv4.map(IpNet::V4), direct.via4.map(IpAddr::V4)),
        (direct.block.ipv6.map(IpNet::V6), direct.via6.map(IpAddr::V6)),
    ];
    let made = |(net, via): (Option<IpNet>, Option<IpAddr>)| {
        Some(Route::over(MAIN, inner.settings.direct_protocol, net?, None, Some(via?)))
    };
    pairs.into_iter().filter_map(made).collect()
}

/// Puts tables right: stale routes of ours go, missing ones come, foreign ones in their place are named.
fn repair_table(work: &mut Work<'_>, there: &[Route], protocol: u8, wanted: &[Route], keep: impl Fn(&Route) -> bool) {
    for stale in there.iter().filter(|seen| seen.protocol == protocol && !keep(seen)) {
        if !wanted.iter().any(|route| route.same_place(stale)) {
            work.remove(format!("removed the stale route {stale}"), stale.delete());
        }
    }
    for route in wanted {
        let in_place: Vec<&Route> = there.iter().filter(|seen| seen.same_place(route)).collect();
        let foreign = in_place.iter().find(|seen| seen.protocol != protocol);
        let ours = in_place.iter().find(|seen| seen.protocol == protocol);
        match (ours, foreign) {
            // An address that moved to another link meanwhile is not pulled back.
            (Some(ours), _) if agrees(ours, route) || keep(ours) => {}
            (Some(ours), _) => {
                work.remove(format!("removed the wrong route {ours}"), ours.delete());
                work.add(format!("added route {route}"), route.add());
            }
            (None, Some(foreign)) => {
                let what = format!(
                    "route {route} is missing: another program (protocol {}) has a route in its place, which is left alone; remove it",
                    foreign.protocol
                );
                work.repairs.push(Repair { what, repaired: false });
            }
            (None, None) => work.add(format!("added the missing route {route}"), route.add()),
        }
    }
}

/// Whether a route seen is the one wanted. The kernel fills in the link of a route that names only a gateway.
fn agrees(seen: &Route, wanted: &Route) -> bool {
    let link = wanted.link.is_none() || wanted.link == seen.link;
    link && seen.via == wanted.via && seen.source == wanted.source && seen.blackhole == wanted.blackhole
}

/// The MTU is left as it was made: from here only the node's side can be changed (`IFLA_TARGET_NETNSID` in RTM_SETLINK moves a link, it
/// does not reach one elsewhere), and a veth drops what is larger than the receiving side's MTU. New pods get the new MTU; old ones
/// learn of a smaller uplink by path MTU discovery (RFC 1191, RFC 8201).
fn repair_link(inner: &Inner, work: &mut Work<'_>, pod: &Wiring, link: &Link, neighbours: &[Neighbour]) {
    let settings = &inner.settings;
    let name = &link.name;
    let (host_mac, container_mac) = macs(&pod.key);
    if link.mac != host_mac {
        work.ask(format!("set the MAC address of {name} back"), link::set_mac(link.index, host_mac));
    }
    if link.group != settings.link_group || (pod.pair.ipv6.is_some() && !link.keeps_no_link_local) {
        let adopt = if pod.pair.ipv6.is_some() { link::adopt } else { link::adopt_without_ipv6 };
        let what = format!("put {name} back into group {} without an address of its own", settings.link_group);
        work.ask(what, adopt(link.index, &link.alias, settings.link_group));
    }
    if !link.up {
        work.ask(format!("brought {name} up again"), link::up(link.index));
    }
    for (path, value) in host_settings(pod, name) {
        match sysctl::set(&settings.sysctl_root.join(&path), value) {
            Ok(false) => {}
            Ok(true) => work.note(format!("set {path} back to {value}"), Ok(())),
            Err(error) => work.note(format!("{path} should be {value}"), Err(error)),
        }
    }
    for own in pod.pair.addresses() {
        let wanted = Neighbour::permanent(link.index, own, container_mac);
        if !neighbours.contains(&wanted) {
            work.ask(format!("set the permanent neighbour {own} on {name} again"), wanted.set());
        }
    }
}

/// A pair whose maker died before it could write the alias: our name, our group, no alias.
fn sweep_half_made(inner: &Inner, work: &mut Work<'_>, links: &[Link], busy: &HashSet<String>) {
    for link in links {
        let half_made = link.kind == "veth"
            && link.alias.is_empty()
            && link.group == inner.settings.link_group
            && is_host_name(&inner.settings, &link.name)
            && !busy.contains(&link.name);
        // One being made by now was not there, or was busy, when the list was read: look again at both.
        if half_made && !lock(&inner.under_way).contains_key(&link.name) {
            let still = link::by_index(work.netlink, link.index);
            if still.is_ok_and(|still| still.is_some_and(|still| still.alias.is_empty() && still.name == link.name)) {
                work.remove(format!("removed {}, a link that was only half made", link.name), link::delete(link.index));
            }
        }
    }
}
