//! Compares the node with what should be there and puts right what is ours. Never touches what is not.
//!
//! Each difference is reported as a [`Finding`].

mod pod;
mod tables;
mod work;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bobbin_ipam::BlockRange;
use ipnet::IpNet;

use crate::attach::node_addresses;
use crate::attachment::{Wiring, host_name};
use crate::finding::{Finding, FindingKind};
use crate::link::Link;
use crate::netns::on_thread;
use crate::network::{Inner, Network, lock};
use crate::own_link::{self, OwnLinks};
use crate::route::{self, MAIN, Route};
use crate::socket::{KernelError, Netlink};
use crate::{clash, export, link, neighbour, prepare};
use tables::{Taken, Wanted, repair_table};
use work::{Owner, Subject, Work};

/// What should be there.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The node's claimed blocks, exactly: routes of other blocks are removed. Nothing is exported or withdrawn while a
    /// comparison runs; the caller sees to that.
    pub blocks: Vec<BlockRange>,
    /// `blocks` may lack some of the node's: then no block's routes are removed.
    pub blocks_may_lack: bool,
    /// The node's live attachments.
    pub pods: Vec<Wiring>,
    /// With `--routing=direct`: the other nodes' blocks. `None`: not known yet, or not used; what is there stays, and the
    /// main table is not read.
    pub direct: Option<Vec<DirectRoute>>,
    /// Whether the node uses IPv4.
    pub ipv4: bool,
    /// Whether the node uses IPv6.
    pub ipv6: bool,
}

/// Another node's block and how to get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectRoute {
    /// The block.
    pub block: BlockRange,
    /// That node's IPv4 address.
    pub via4: Option<Ipv4Addr>,
    /// That node's IPv6 address.
    pub via6: Option<Ipv6Addr>,
}

impl Network {
    /// Makes the node as it should be and says what differed. Attachments whose link is missing are reported, not made:
    /// that takes an ADD. Links that are being made or removed at this moment are passed over.
    ///
    /// # Errors
    /// The node can't be read; nothing was compared. What can't be put right is a finding, not an error.
    pub async fn converge(&self, desired: &Desired) -> Result<Vec<Finding>, KernelError> {
        let inner = self.inner.clone();
        let desired = desired.clone();
        on_thread(move || inner.with_netlink(|netlink| converge(&inner, netlink, &desired))).await
    }
}

fn converge(inner: &Inner, netlink: &mut Netlink, desired: &Desired) -> Result<Vec<Finding>, KernelError> {
    let settings = &inner.settings;
    let mut work = Work::new(netlink);
    match prepare::prepare(inner, work.netlink, desired.ipv4, desired.ipv6) {
        Ok(findings) => work.findings.extend(findings),
        Err(error) => work.refused(&Owner::node(), format!("the node can't be made ready for pods: {error}")),
    }
    let nodes: Vec<IpAddr> = desired.pods.first().map(node_addresses).unwrap_or_default();
    inner.look_up_mtu(work.netlink, &nodes)?;
    // The tables are read first, then who is at work, then the links: a route seen without its link is really stale.
    let mut there = route::list(work.netlink, settings.pod_table)?;
    there.extend(route::list(work.netlink, settings.export_table)?);
    let busy = inner.busy();
    let links = link::list(work.netlink)?;
    let own = OwnLinks::of(&links);
    let neighbours = neighbour::list(work.netlink)?;
    let mut wanted = wanted_of_blocks(inner, &desired.blocks);
    let mut known = HashSet::new();
    for pod in &desired.pods {
        let name = host_name(settings, &pod.key);
        if busy.contains(&name) {
            continue;
        }
        let owner = Owner::pod(pod, lock(&inner.in_place).has_pod(pod));
        let carries = |index| own_link::is_routed(&there, settings, pod.pair, index);
        match own.find(settings, &pod.key, carries) {
            Some(link) => {
                known.insert(link.index);
                wanted.extend(pod::routes(inner, &owner, pod, link.index));
                pod::repair_link(inner, &mut work, &owner, pod, link, &neighbours);
            }
            // A detach may have begun since the others at work were looked up.
            None if inner.busy().contains(&name) => {}
            None => work.found(
                &owner,
                FindingKind::LinkMissing,
                format!("link {name} of {} ({}) is missing", pod.key, pod.pair),
            ),
        }
    }
    pod::sweep_half_made(inner, &mut work, &links, &known, &there);
    // Attachments that the caller does not list (yet) keep their routes: what is wired is in use until it is detached.
    let unlisted = |link: &&Link| {
        let in_group = link.kind == "veth" && link.group == settings.link_group;
        busy.contains(&link.name) || ((link.is_ours() || in_group) && !known.contains(&link.index))
    };
    let passed_over: HashSet<u32> = links.iter().filter(unlisted).map(|link| link.index).collect();
    let block_stays =
        |route: &Route| desired.blocks_may_lack && (route.blackhole || route.link == Some(link::LOOPBACK));
    let keep = |route: &Route| block_stays(route) || route.link.is_some_and(|index| passed_over.contains(&index));
    repair_table(&mut work, &there, settings.protocol, &wanted, keep, Taken::ByUs);
    if let Some(direct) = &desired.direct {
        let main = route::list_of(work.netlink, MAIN, settings.direct_protocol)?;
        let wanted = wanted_of_direct(inner, direct);
        repair_table(&mut work, &main, settings.direct_protocol, &wanted, |_| false, Taken::ByOthers);
    }
    *lock(&inner.warnings) = clash::find(work.netlink, settings)?;
    remember(inner, desired, &work, &links);
    Ok(work.findings)
}

fn wanted_of_blocks(inner: &Inner, blocks: &[BlockRange]) -> Vec<Wanted> {
    let in_place = lock(&inner.in_place);
    let of_block = |block: &BlockRange| {
        let owner = Owner::new(Subject::Block(*block), in_place.has_block(block));
        export::routes(&inner.settings, block).into_iter().map(move |route| Wanted { route, owner: owner.clone() })
    };
    blocks.iter().collect::<HashSet<_>>().into_iter().flat_map(of_block).collect()
}

fn wanted_of_direct(inner: &Inner, direct: &[DirectRoute]) -> Vec<Wanted> {
    let in_place = lock(&inner.in_place);
    let of_block = |direct: &DirectRoute| {
        let owner = Owner::new(Subject::Direct(*direct), in_place.has_direct(direct));
        let pairs = [
            (direct.block.ipv4.map(IpNet::V4), direct.via4.map(IpAddr::V4)),
            (direct.block.ipv6.map(IpNet::V6), direct.via6.map(IpAddr::V6)),
        ];
        pairs.into_iter().filter_map(move |(net, via)| {
            let route = Route::over(MAIN, inner.settings.direct_protocol, net?, None, Some(via?));
            Some(Wanted { route, owner: owner.clone() })
        })
    };
    direct.iter().flat_map(of_block).collect()
}

/// Keeps what is right now, so that the next comparison can tell a repair.
fn remember(inner: &Inner, desired: &Desired, work: &Work<'_>, links: &[Link]) {
    let busy = inner.busy();
    let mut in_place = lock(&inner.in_place);
    if !desired.blocks_may_lack {
        in_place.keep_blocks(&desired.blocks.iter().copied().collect());
    }
    desired
        .blocks
        .iter()
        .filter(|block| work.is_right(&Subject::Block(**block)))
        .for_each(|block| in_place.put_block(*block));
    if let Some(direct) = &desired.direct {
        in_place.set_direct(direct.iter().copied().filter(|route| work.is_right(&Subject::Direct(*route))).collect());
    }
    let is_being_changed = |pod: &Wiring| busy.contains(&host_name(&inner.settings, &pod.key));
    for pod in desired.pods.iter().filter(|pod| !is_being_changed(pod)) {
        if work.is_right(&Subject::Pod(pod.key.clone())) {
            in_place.put_pod(pod);
        }
    }
    // A pod that was detached while this ran goes with the next comparison.
    let mut alive: HashSet<_> = desired.pods.iter().map(|pod| pod.key.clone()).collect();
    alive.extend(links.iter().filter_map(Link::owner));
    in_place.keep_pods(|pod| alive.contains(&pod.key) || is_being_changed(pod));
}
