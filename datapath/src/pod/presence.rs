//! Finds out whether an attachment's link and network namespace still exist. If both are gone, the agent may free the
//! attachment's address without a DEL.
//!
//! If the kernel's answer is missing or unclear, the attachment counts as "in use".

use std::collections::{BTreeSet, HashMap};

use bobbin_ipam::{AttachmentKey, IpPair};
use nix::libc;

use crate::names::{container_of_alias, host_name};
use crate::netlink::link::{self, Link};
use crate::netlink::{KernelError, Netlink, netns_id, route};
use crate::netns::NetnsRef;
use crate::pod::host_link::{self, LinkIndex};
use crate::state::State;

/// How many namespace IDs the agent looks up with one datagram. Each ID takes two requests.
const IDS_PER_DATAGRAM: usize = 64;

/// What is left of an attachment on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetnsPresence {
    /// The host link exists. As far as the agent knows, the container's interface is in the container's namespace.
    Linked,
    /// The host link and the network namespace are gone. Only this value proves that the address is out of use.
    NetnsGone,
    /// The host link is gone, but the network namespace exists: the container may still run, without a network.
    Broken,
    /// The host link exists, but the container's namespace is gone, so the interface was moved to another namespace.
    /// While the kernel deletes a namespace, this value may be wrong for some milliseconds. So callers report a moved
    /// interface only after two observations.
    Moved,
    /// The host link is gone, but the network namespace may exist. The address counts as in use.
    Unknown,
}

/// The result of looking up the ID of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Namespace {
    /// No network namespace has this ID.
    Gone,
    /// A network namespace has this ID. The text is the container ID in the alias of the namespace's `lo`, if Bobbin
    /// set the alias.
    Exists(Option<String>),
}

/// What is left of each attachment on the node.
pub(crate) fn presence(
    state: &State,
    netlink: &mut Netlink,
    asked: Vec<(AttachmentKey, Option<NetnsRef>)>,
) -> Result<HashMap<AttachmentKey, NetnsPresence>, KernelError> {
    let settings = &state.settings;
    let busy = state.busy_links();
    let routes = route::list(netlink, settings.pod_table)?;
    let links = link::list(netlink)?;
    let index = LinkIndex::of(&links);
    let usable = |netns: NetnsRef| Some(netns.cookie) == state.netns_cookie;
    let ids: BTreeSet<i32> =
        asked.iter().filter_map(|(_, netns)| netns.filter(|netns| usable(*netns))).map(|netns| netns.id).collect();
    let namespaces = look_up(netlink, &ids);
    let presence_of = |(key, netns): (AttachmentKey, Option<NetnsRef>)| {
        let pair = state.programmed.lock().pod(&key).map_or_else(IpPair::default, |wiring| wiring.pair);
        let is_routed = |index| host_link::is_routed(&routes, settings, pair, index);
        let link = index.find(settings, &key, is_routed);
        let in_flight = busy.contains(&host_name(settings, &key));
        let known = netns.filter(|netns| usable(*netns) && !in_flight);
        let namespace = known.and_then(|netns| Some((netns.id, namespaces.get(&netns.id)?)));
        let presence = decide(&key, link, namespace);
        (key, presence)
    };
    Ok(asked.into_iter().map(presence_of).collect())
}

/// Decides what is left of an attachment. `link` is `None` if the host link is gone. `namespace` holds the ID that the
/// ADD recorded and the result of looking up this ID. `namespace` is `None` if the ID or the result is unknown.
fn decide(key: &AttachmentKey, link: Option<&Link>, namespace: Option<(i32, &Namespace)>) -> NetnsPresence {
    let ended = namespace.map(|(_, namespace)| match namespace {
        Namespace::Gone => true,
        // The kernel reuses namespace IDs. So a namespace with another container's ID in the alias of `lo` means that
        // the attachment's namespace has ended.
        Namespace::Exists(container) => container.as_ref().is_some_and(|container| *container != key.container_id),
    });
    match (link, namespace, ended) {
        // The alias of `lo` contains another container's ID, but the link's peer is still in this namespace. So two
        // containers share the namespace, and the ADD of the other container has overwritten the alias.
        (Some(link), Some((id, Namespace::Exists(_))), Some(true)) if link.peer_netns == Some(id) => {
            NetnsPresence::Linked
        }
        (Some(_), _, Some(true)) => NetnsPresence::Moved,
        (Some(_), _, _) => NetnsPresence::Linked,
        (None, _, Some(true)) => NetnsPresence::NetnsGone,
        (None, _, Some(false)) => NetnsPresence::Broken,
        (None, _, None) => NetnsPresence::Unknown,
    }
}

/// Finds the network namespaces with the given IDs. Leaves out an ID if the kernel's answer is unclear; its attachment
/// then counts as in use.
fn look_up(netlink: &mut Netlink, ids: &BTreeSet<i32>) -> HashMap<i32, Namespace> {
    let ids: Vec<i32> = ids.iter().copied().collect();
    let mut found = HashMap::new();
    for batch in ids.chunks(IDS_PER_DATAGRAM) {
        let requests = batch.iter().flat_map(|id| [netns_id::exists(*id), link::loopback_of(*id)]).collect();
        let answers = match netlink.send(requests) {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(%error, "the agent could not look up the network namespaces of some pods, so their addresses count as in use");
                return found;
            }
        };
        for (id, answers) in batch.iter().zip(answers.chunks(2)) {
            let namespace = match answers {
                [Err(error), _] if error.errno() == Some(libc::ENOENT) => Namespace::Gone,
                [Ok(_), Ok(loopback)] => match loopback.first().map(|reply| Link::decode(&reply.payload)) {
                    Some(Ok(link)) => Namespace::Exists(container_of_alias(&link.alias).map(ToOwned::to_owned)),
                    Some(Err(_)) | None => continue,
                },
                _ => continue,
            };
            found.insert(*id, namespace);
        }
    }
    found
}

#[cfg(test)]
mod tests;
