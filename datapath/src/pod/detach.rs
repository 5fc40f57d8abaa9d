//! Unwires attachments: removes routes and neighbours one by one, and links in batches.
//!
//! The kernel needs about 17 ms for a removal request, however many links it names. So concurrent detaches move their
//! links to an otherwise empty link group, and one request removes all links of the group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_ipam::{AttachmentKey, IpPair};
use tokio::sync::oneshot;

use crate::names::{host_name, macs};
use crate::netlink::link::{self, Link};
use crate::netlink::neighbour::Neighbour;
use crate::netlink::route::{self, Route};
use crate::netlink::{KernelError, Netlink, OwnChanges, Request, gone_is_success};
use crate::netns::on_thread;
use crate::pod::host_link::{self, LinkIndex};
use crate::state::{QueuedRemoval, State};

/// The link group of the first batch. The number is far from the small numbers that administrators choose.
const FIRST_GROUP: u32 = 0x0b0b_0000;
/// A batch waits at most this long for detaches that have begun but have not queued their link. Otherwise these links
/// would need another batch, which takes another 17 ms.
const BATCH_DEBOUNCE: Duration = Duration::from_millis(15);
const BATCH_POLL_INTERVAL: Duration = Duration::from_micros(100);
const STACK_BYTES: usize = 512 << 10;

/// A detach that has begun but has not queued its link. While this value exists, the next batch waits for the detach.
/// It waits no longer than [`BATCH_DEBOUNCE`].
struct Arrival(Arc<State>);

impl Arrival {
    fn begin(state: &Arc<State>) -> Self {
        state.removal_queue.arrive();
        Self(state.clone())
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.removal_queue.arrived();
    }
}

/// Unwires an attachment: removes routes and neighbours first, then the link. Idempotent.
pub(crate) async fn detach(state: &Arc<State>, key: &AttachmentKey, pair: IpPair) -> Result<(), KernelError> {
    let name = host_name(&state.settings, key);
    let _in_flight = state.in_flight.begin(&name);
    let arrival = Arrival::begin(state);
    let (shared, key) = (state.clone(), key.clone());
    let removal = on_thread(move || {
        let state = shared;
        let Some(link) = state.with_netlink(|netlink| unroute(&state, netlink, &key, pair))? else { return Ok(None) };
        let (done, removal) = oneshot::channel();
        let must_start = state.removal_queue.push(QueuedRemoval { index: link.index, alias: link.alias, done });
        drop(arrival);
        if must_start {
            start_removals(&state)?;
        }
        Ok::<_, KernelError>(Some(removal))
    })
    .await?;
    match removal {
        None => Ok(()),
        Some(removal) => removal.await.unwrap_or_else(|_| {
            let ended = std::io::Error::other("the thread that removes links ended early");
            Err(KernelError::io("remove the link")(ended))
        }),
    }
}

/// Finds the attachment's link: usually by its name, otherwise in a list of all links.
fn find(state: &State, netlink: &mut Netlink, key: &AttachmentKey, pair: IpPair) -> Result<Option<Link>, KernelError> {
    let settings = &state.settings;
    let named = link::by_name(netlink, &host_name(settings, key))?;
    if let Some(link) = named.filter(|link| link.owner().as_ref() == Some(key)) {
        return Ok(Some(link));
    }
    let routes = route::list(netlink, settings.pod_table)?;
    let is_routed = |index| host_link::is_routed(&routes, settings, pair, index);
    Ok(LinkIndex::of(&link::list(netlink)?).find(settings, key, is_routed).cloned())
}

/// Removes the routes and neighbours of an attachment, and returns its link if it still exists.
fn unroute(
    state: &State,
    netlink: &mut Netlink,
    key: &AttachmentKey,
    pair: IpPair,
) -> Result<Option<Link>, KernelError> {
    state.programmed.lock().remove_pod(key);
    let Some(link) = find(state, netlink, key, pair)? else { return Ok(None) };
    let settings = &state.settings;
    let mut requests: Vec<Request> = Vec::new();
    for address in pair.addresses() {
        requests.push(Route::to_pod(settings.pod_table, settings.protocol, address, link.index, None).delete());
        requests.push(Neighbour::permanent(link.index, address, macs(key).1).delete());
    }
    if !requests.is_empty() {
        netlink.send(requests)?.into_iter().try_for_each(gone_is_success)?;
    }
    Ok(Some(link))
}

/// Starts the thread that removes links in batches. If a detach removed the batches itself, it would also wait for
/// the batches after its own.
fn start_removals(state: &Arc<State>) -> Result<(), KernelError> {
    let shared = state.clone();
    let run = move || remove_all(&shared);
    let spawned = std::thread::Builder::new().name("bobbin-remove".to_owned()).stack_size(STACK_BYTES).spawn(run);
    spawned.map(drop).map_err(|error| {
        state.removal_queue.cancel();
        KernelError::io("start a thread")(error)
    })
}

/// Removes batches of links until no link waits for removal. While the kernel removes one batch, further links are
/// queued for the next batch.
fn remove_all(state: &State) {
    loop {
        let start = Instant::now();
        while state.removal_queue.is_awaiting_arrivals() && start.elapsed() < BATCH_DEBOUNCE {
            std::thread::sleep(BATCH_POLL_INTERVAL);
        }
        let Some(batch) = state.removal_queue.take_batch() else { return };
        remove(state, batch);
    }
}

fn remove(state: &State, batch: Vec<QueuedRemoval>) {
    let whole =
        if batch.len() > 1 { state.with_netlink(|netlink| remove_group(state, netlink, &batch)) } else { Ok(false) };
    let removed = match whole {
        Ok(removed) => removed,
        Err(error) => {
            tracing::warn!(%error, links = batch.len(), "the agent could not remove a batch of links with one request, so it removes each link separately");
            false
        }
    };
    for queued in batch {
        let remove = |netlink: &mut Netlink| remove_one(netlink, &state.own_changes, &queued);
        let result = if removed { Ok(()) } else { state.with_netlink(remove) };
        // Ignore the result: the send fails only if the detach no longer waits.
        drop(queued.done.send(result));
    }
}

/// Removes a queued link. If the link's index now belongs to another link, this function removes nothing.
fn remove_one(netlink: &mut Netlink, own_changes: &OwnChanges, queued: &QueuedRemoval) -> Result<(), KernelError> {
    if link::by_index(netlink, queued.index)?.is_none_or(|link| link.alias != queued.alias) {
        return Ok(());
    }
    link::remove(netlink, own_changes, queued.index)
}

/// Moves the links to a new group, and removes all links of the group. Returns `false`, and removes nothing, if the
/// group holds another link.
fn remove_group(state: &State, netlink: &mut Netlink, batch: &[QueuedRemoval]) -> Result<bool, KernelError> {
    let number = state.removal_queue.next_batch_number();
    let group = FIRST_GROUP | (number & 0xffff);
    let moves = batch.iter().map(|queued| link::set_group(queued.index, group)).collect();
    netlink.send(moves)?.into_iter().try_for_each(gone_is_success)?;
    let members: Vec<Link> = link::list(netlink)?.into_iter().filter(|link| link.group == group).collect();
    let all_are_queued =
        members.iter().all(|link| batch.iter().any(|queued| queued.index == link.index && queued.alias == link.alias));
    if members.is_empty() {
        return Ok(true);
    }
    if !all_are_queued {
        tracing::warn!(
            group,
            "the link group of a batch holds a link that is not in the batch; the agent removes each link of the batch separately"
        );
        return Ok(false);
    }
    for link in &members {
        state.own_changes.removing(link.index);
    }
    let removed = gone_is_success(netlink.send_one(link::delete_group(group)));
    for link in &members {
        state.own_changes.removed(link.index);
    }
    removed.map(|()| true)
}
