//! Whether an attachment's link and network namespace still exist: the evidence for freeing an address without a DEL.
//!
//! Anything that can't be read counts as "in use".

use std::collections::{BTreeSet, HashMap};

use bobbin_ipam::{AttachmentKey, IpPair};

use crate::attachment::{container_of_alias, host_name};
use crate::link::{self, Link};
use crate::netns::{NetnsRef, on_thread};
use crate::network::{Inner, Network, lock};
use crate::own_link::{self, OwnLinks};
use crate::socket::{KernelError, Netlink};
use crate::{netns_id, route};

/// IDs looked up in one datagram. Each takes two requests.
const BATCH: usize = 64;

/// What is left of an attachment on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// The host link is there, and nothing says that the interface left its namespace.
    Linked,
    /// The host link and the network namespace are gone. The only proof that the address is out of use.
    NetnsGone,
    /// The host link is gone, the namespace is there: the container may run on, without a network.
    Broken,
    /// The host link is there but its namespace is gone: the interface was moved to another one. A namespace that is
    /// ending looks like this for some milliseconds, so look twice before telling anybody.
    Moved,
    /// The host link is gone, and whether the namespace exists can't be told. Counts as in use.
    Unknown,
}

/// What an ID of a network namespace leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Namespace {
    /// The ID does not exist.
    Gone,
    /// The ID exists; the container that the alias of its `lo` names, if it is an alias of ours.
    There(Option<String>),
}

impl Network {
    /// Tells for each attachment what is left of it. Attachments without a [`NetnsRef`], or with one that another
    /// network namespace observed, are at best [`Presence::Unknown`] when their link is gone.
    ///
    /// # Errors
    /// The links or routes of the node can't be listed: nothing is known then, so everything counts as in use.
    pub async fn presence(
        &self,
        asked: Vec<(AttachmentKey, Option<NetnsRef>)>,
    ) -> Result<HashMap<AttachmentKey, Presence>, KernelError> {
        let inner = self.inner.clone();
        on_thread(move || inner.with_netlink(|netlink| presence(&inner, netlink, asked))).await
    }
}

fn presence(
    inner: &Inner,
    netlink: &mut Netlink,
    asked: Vec<(AttachmentKey, Option<NetnsRef>)>,
) -> Result<HashMap<AttachmentKey, Presence>, KernelError> {
    let settings = &inner.settings;
    let busy = inner.busy();
    let routes = route::list(netlink, settings.pod_table)?;
    let links = link::list(netlink)?;
    let own = OwnLinks::of(&links);
    let usable = |netns: NetnsRef| Some(netns.cookie) == inner.cookie;
    let ids: BTreeSet<i32> =
        asked.iter().filter_map(|(_, netns)| netns.filter(|netns| usable(*netns))).map(|netns| netns.id).collect();
    let namespaces = look_up(netlink, &ids);
    let judge = |(key, netns): (AttachmentKey, Option<NetnsRef>)| {
        let pair = lock(&inner.in_place).pod(&key).map_or_else(IpPair::default, |wiring| wiring.pair);
        let carries = |index| own_link::is_routed(&routes, settings, pair, index);
        let link = own.find(settings, &key, carries);
        let being_changed = busy.contains(&host_name(settings, &key));
        let known = netns.filter(|netns| usable(*netns) && !being_changed);
        let namespace = known.and_then(|netns| Some((netns.id, namespaces.get(&netns.id)?)));
        let verdict = decide(&key, link, namespace);
        (key, verdict)
    };
    Ok(asked.into_iter().map(judge).collect())
}

/// `namespace` is the ID that ADD was told and what it leads to now; `None`: not known.
fn decide(key: &AttachmentKey, link: Option<&Link>, namespace: Option<(i32, &Namespace)>) -> Presence {
    let ended = namespace.map(|(_, namespace)| match namespace {
        Namespace::Gone => true,
        // The kernel gives a freed ID to the next namespace at once.
        Namespace::There(container) => container.as_ref().is_some_and(|container| *container != key.container_id),
    });
    match (link, namespace, ended) {
        // Two containers may share a namespace: then `lo` names the later one, but the link still leads there.
        (Some(link), Some((id, Namespace::There(_))), Some(true)) if link.peer_netns == Some(id) => Presence::Linked,
        (Some(_), _, Some(true)) => Presence::Moved,
        (Some(_), _, _) => Presence::Linked,
        (None, _, Some(true)) => Presence::NetnsGone,
        (None, _, Some(false)) => Presence::Broken,
        (None, _, None) => Presence::Unknown,
    }
}

/// What the IDs lead to. One whose answer is unclear is left out.
fn look_up(netlink: &mut Netlink, ids: &BTreeSet<i32>) -> HashMap<i32, Namespace> {
    let ids: Vec<i32> = ids.iter().copied().collect();
    let mut found = HashMap::new();
    for batch in ids.chunks(BATCH) {
        let asks = batch.iter().flat_map(|id| [netns_id::exists(*id), link::loopback_of(*id)]).collect();
        let answers = match netlink.ask(asks) {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(%error, "network namespaces could not be looked up; their attachments count as in use");
                return found;
            }
        };
        for (id, answers) in batch.iter().zip(answers.chunks(2)) {
            let namespace = match answers {
                [Err(error), _] if error.errno() == Some(nix::libc::ENOENT) => Namespace::Gone,
                [Ok(_), Ok(loopback)] => match loopback.first().and_then(Link::read) {
                    Some(link) => Namespace::There(container_of_alias(&link.alias).map(ToOwned::to_owned)),
                    None => continue,
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
