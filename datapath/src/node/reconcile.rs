//! The reconcile pass compares the node with the desired state and corrects Bobbin's objects. It never changes another
//! program's objects.
//!
//! Each difference is reported as a [`Drift`].

mod pass;
mod pod;
mod routes;

use std::collections::HashSet;
use std::net::IpAddr;

use bobbin_ipam::BlockRange;
use ipnet::IpNet;

use crate::conflicts;
use crate::names::host_name;
use crate::netlink::link::{self, Link};
use crate::netlink::route::{self, MAIN, Route};
use crate::netlink::{KernelError, Netlink, neighbour};
use crate::node::desired::{DesiredState, DirectRoute};
use crate::node::drift::{Drift, DriftKind};
use crate::node::{export, setup};
use crate::pod::attachment::Wiring;
use crate::pod::host_link::{self, LinkIndex};
use crate::state::State;
use pass::{Owner, Pass, Subject};
use routes::{RivalRoute, WantedRoute, repair_table};

/// Makes the node match the desired state, and returns the differences found. A missing link is only reported, because
/// only an ADD can create a link. Skips links that another operation is creating or removing.
///
/// # Errors
/// Fails if the node's state can't be read. A failed repair is not an error: the function returns it as a drift.
pub(crate) fn reconcile(
    state: &State,
    netlink: &mut Netlink,
    desired: &DesiredState,
) -> Result<Vec<Drift>, KernelError> {
    let settings = &state.settings;
    let mut pass = Pass::new(state, netlink);
    match setup::set_up(state, pass.netlink, desired.ipv4, desired.ipv6) {
        Ok(changes) => pass.drifts.extend(changes),
        Err(error) => pass.not_repairable(&Owner::node(), format!("the agent can't set up the node for pods: {error}")),
    }
    let node: Vec<IpAddr> = desired.pods.first().map(Wiring::node_addresses).unwrap_or_default();
    state.detect_mtu(pass.netlink, &node)?;
    // Read the routing tables first, then the links in flight, and then all links. If a route's link is not
    // in the list of links, the link was removed after the pass had read the tables. So the route is certainly stale.
    let mut routes = route::list(pass.netlink, settings.pod_table)?;
    routes.extend(route::list(pass.netlink, settings.export_table)?);
    let busy = state.busy_links();
    let links = link::list(pass.netlink)?;
    let index = LinkIndex::of(&links);
    let neighbours = neighbour::list(pass.netlink)?;
    let mut wanted = wanted_of_blocks(state, &desired.blocks);
    let mut known = HashSet::new();
    for pod in &desired.pods {
        let name = host_name(settings, &pod.key);
        if busy.contains(&name) {
            continue;
        }
        let owner = Owner::pod(pod, state.programmed.lock().has_pod(pod));
        let is_routed = |index| host_link::is_routed(&routes, settings, pod.pair, index);
        match index.find(settings, &pod.key, is_routed) {
            Some(link) => {
                known.insert(link.index);
                wanted.extend(pod::wanted_routes(settings, &owner, pod, link.index));
                pod::repair_link(&mut pass, &owner, pod, link, &neighbours);
            }
            // A detach has begun since the pass read the links in flight, and removed this link. So report nothing.
            None if state.in_flight.contains(&name) => {}
            None => pass.report(
                &owner,
                DriftKind::LinkMissing,
                format!("link {name} of {} ({}) is missing", pod.key, pod.pair),
            ),
        }
    }
    pod::remove_half_created(&mut pass, &links, &known, &routes);
    // Links of attachments that the caller does not list keep their routes, because an address is in use until its pod
    // is detached.
    let unlisted = |link: &&Link| {
        let in_group = link.is_veth() && link.group == settings.link_group;
        busy.contains(&link.name) || ((link.is_own() || in_group) && !known.contains(&link.index))
    };
    let skipped: HashSet<u32> = links.iter().filter(unlisted).map(|link| link.index).collect();
    let block_stays =
        |route: &Route| desired.blocks_incomplete && (route.blackhole || route.link == Some(link::LOOPBACK));
    let keep = |route: &Route| block_stays(route) || route.link.is_some_and(|index| skipped.contains(&index));
    repair_table(&mut pass, &routes, settings.protocol, &wanted, keep, RivalRoute::Own);
    if let Some(direct) = &desired.direct {
        let main = route::list_of(pass.netlink, MAIN, settings.direct_protocol)?;
        let wanted = wanted_of_direct(state, direct);
        repair_table(&mut pass, &main, settings.direct_protocol, &wanted, |_| false, RivalRoute::OfAnotherProgram);
    }
    conflicts::update(pass.netlink, state);
    remember(state, desired, &pass, &links);
    Ok(pass.drifts)
}

fn wanted_of_blocks(state: &State, blocks: &[BlockRange]) -> Vec<WantedRoute> {
    let programmed = state.programmed.lock();
    let of_block = |block: &BlockRange| {
        let owner = Owner::new(Subject::Block(*block), programmed.has_block(block));
        export::routes(&state.settings, block).into_iter().map(move |route| WantedRoute { route, owner: owner.clone() })
    };
    blocks.iter().collect::<HashSet<_>>().into_iter().flat_map(of_block).collect()
}

fn wanted_of_direct(state: &State, direct: &[DirectRoute]) -> Vec<WantedRoute> {
    let programmed = state.programmed.lock();
    let of_block = |direct: &DirectRoute| {
        let owner = Owner::new(Subject::DirectRoute(*direct), programmed.has_direct_route(direct));
        let pairs = [
            (direct.block.ipv4.map(IpNet::V4), direct.via4.map(IpAddr::V4)),
            (direct.block.ipv6.map(IpNet::V6), direct.via6.map(IpAddr::V6)),
        ];
        pairs.into_iter().filter_map(move |(net, via)| {
            let route = Route::over(MAIN, state.settings.direct_protocol, net?, None, Some(via?));
            Some(WantedRoute { route, owner: owner.clone() })
        })
    };
    direct.iter().flat_map(of_block).collect()
}

/// Remembers which objects are correct now, so that the next pass can tell a repair from the first change of an object.
fn remember(state: &State, desired: &DesiredState, pass: &Pass<'_>, links: &[Link]) {
    let busy = state.busy_links();
    let mut programmed = state.programmed.lock();
    if !desired.blocks_incomplete {
        programmed.keep_blocks(&desired.blocks.iter().copied().collect());
    }
    desired
        .blocks
        .iter()
        .filter(|block| pass.is_correct(&Subject::Block(**block)))
        .for_each(|block| programmed.put_block(*block));
    if let Some(direct) = &desired.direct {
        programmed.set_direct_routes(
            direct.iter().copied().filter(|route| pass.is_correct(&Subject::DirectRoute(*route))).collect(),
        );
    }
    let is_in_flight = |pod: &Wiring| busy.contains(&host_name(&state.settings, &pod.key));
    for pod in desired.pods.iter().filter(|pod| !is_in_flight(pod)) {
        if pass.is_correct(&Subject::Pod(pod.key.clone())) {
            programmed.put_pod(pod);
        }
    }
    // Forget each pod that has no link and is not in the desired state. If a pod was detached during this pass, the
    // next pass forgets the pod.
    let mut alive: HashSet<_> = desired.pods.iter().map(|pod| pod.key.clone()).collect();
    alive.extend(links.iter().filter_map(Link::owner));
    programmed.keep_pods(|pod| alive.contains(&pod.key) || is_in_flight(pod));
}
