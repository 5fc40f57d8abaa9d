//! Unwires attachments: the address goes out of use at once, the link with the next batch.
//!
//! Removing a link costs the kernel a grace period of some 17 ms whatever the number of links, so
//! links of detaches that are under way together go in one request, by a link group that holds them and nothing else.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bobbin_ipam::{AttachmentKey, IpPair};
use tokio::sync::oneshot;

use crate::attach::UnderWay;
use crate::attachment::{host_name, macs};
use crate::echoes::Echoes;
use crate::link::{self, Link};
use crate::neighbour::Neighbour;
use crate::netns::on_thread;
use crate::network::{Inner, Network, lock};
use crate::own_link::{self, OwnLinks};
use crate::route::{self, Route};
use crate::socket::{Ask, KernelError, Netlink, gone_is_fine};

/// Where the groups of links that are leaving begin: far from the small numbers people choose.
const FIRST_GROUP: u32 = 0x0b0b_0000;

/// Links that wait for the next batch, and whether one is under way.
#[derive(Default)]
pub(crate) struct Leaving {
    queue: Mutex<Queue>,
    batches: AtomicU32,
    /// Detaches that have begun and are not in the queue yet.
    arriving: AtomicUsize,
}

/// How long a batch waits for detaches that have begun: less than the grace period they would else wait for alone.
const GATHER: Duration = Duration::from_millis(15);

/// One detach that has begun; it has arrived when this is dropped.
struct Arriving(Arc<Inner>);

impl Arriving {
    fn begin(inner: &Arc<Inner>) -> Self {
        inner.leaving.arriving.fetch_add(1, Ordering::AcqRel);
        Self(inner.clone())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.leaving.arriving.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    running: bool,
}

struct Waiting {
    index: u32,
    alias: String,
    done: oneshot::Sender<Result<(), KernelError>>,
}

impl Network {
    /// Unwires an attachment: routes and neighbours first, then the link. What is gone already is success. Its link is
    /// found also under another name or alias; what is another attachment's or another program's is not touched.
    pub async fn detach(&self, key: &AttachmentKey, pair: IpPair) -> Result<(), KernelError> {
        let inner = self.inner.clone();
        let key = key.clone();
        let name = host_name(&inner.settings, &key);
        let _under_way = UnderWay::begin(&self.inner.under_way, &name);
        let arriving = Arriving::begin(&inner);
        let left = on_thread(move || {
            let queued = inner.with_netlink(|netlink| take_out(&inner, netlink, &key, pair))?;
            let Some((link, alias)) = queued else { return Ok(None) };
            let (done, left) = oneshot::channel();
            let leads = {
                let mut queue = lock(&inner.leaving.queue);
                queue.waiting.push(Waiting { index: link.index, alias, done });
                !std::mem::replace(&mut queue.running, true)
            };
            drop(arriving);
            if leads {
                lead(&inner)?;
            }
            Ok::<_, KernelError>(Some(left))
        })
        .await?;
        match left {
            None => Ok(()),
            Some(left) => left.await.unwrap_or_else(|_| {
                let ended = std::io::Error::other("the batch it was in ended early");
                Err(KernelError::io("remove the link")(ended))
            }),
        }
    }
}

/// The attachment's link: usually by its name at once, else by a look at all links.
fn find(inner: &Inner, netlink: &mut Netlink, key: &AttachmentKey, pair: IpPair) -> Result<Option<Link>, KernelError> {
    let settings = &inner.settings;
    let named = link::by_name(netlink, &host_name(settings, key))?;
    if let Some(link) = named.filter(|link| link.owner().as_ref() == Some(key)) {
        return Ok(Some(link));
    }
    let routes = route::list(netlink, settings.pod_table)?;
    let carries = |index| own_link::is_routed(&routes, settings, pair, index);
    Ok(OwnLinks::of(&link::list(netlink)?).find(settings, key, carries).cloned())
}

/// Takes the address out of use; the link that is left, if there is one.
fn take_out(
    inner: &Inner,
    netlink: &mut Netlink,
    key: &AttachmentKey,
    pair: IpPair,
) -> Result<Option<(Link, String)>, KernelError> {
    lock(&inner.in_place).remove_pod(key);
    let Some(link) = find(inner, netlink, key, pair)? else { return Ok(None) };
    let settings = &inner.settings;
    let mut asks: Vec<Ask> = Vec::new();
    for own in pair.addresses() {
        asks.push(Route::to_pod(settings.pod_table, settings.protocol, own, link.index, None).delete());
        asks.push(Neighbour::permanent(link.index, own, macs(key).1).delete());
    }
    if !asks.is_empty() {
        netlink.ask(asks)?.into_iter().try_for_each(gone_is_fine)?;
    }
    let alias = link.alias.clone();
    Ok(Some((link, alias)))
}

/// Starts the thread that removes batches: nobody's own detach is to wait for the ones after it.
fn lead(inner: &Arc<Inner>) -> Result<(), KernelError> {
    let shared = inner.clone();
    let run = move || remove_all(&shared);
    let spawned = std::thread::Builder::new().name("bobbin-remove".to_owned()).stack_size(512 << 10).spawn(run);
    spawned.map(drop).map_err(|error| {
        // Whoever waits is told by the closed channel, and the next detach leads.
        let mut queue = lock(&inner.leaving.queue);
        queue.running = false;
        queue.waiting.clear();
        KernelError::io("start a thread")(error)
    })
}

/// Removes batch after batch until none waits. While one is in its grace period the next collects.
fn remove_all(inner: &Inner) {
    loop {
        let start = Instant::now();
        while inner.leaving.arriving.load(Ordering::Acquire) > 0 && start.elapsed() < GATHER {
            std::thread::sleep(Duration::from_micros(100));
        }
        let batch = {
            let mut queue = lock(&inner.leaving.queue);
            if queue.waiting.is_empty() {
                queue.running = false;
                return;
            }
            std::mem::take(&mut queue.waiting)
        };
        remove(inner, batch);
    }
}

fn remove(inner: &Inner, batch: Vec<Waiting>) {
    let whole =
        if batch.len() > 1 { inner.with_netlink(|netlink| remove_group(inner, netlink, &batch)) } else { Ok(false) };
    let removed = match whole {
        Ok(removed) => removed,
        Err(error) => {
            tracing::warn!(%error, links = batch.len(), "links could not be removed together; removing one by one");
            false
        }
    };
    for waiting in batch {
        let result =
            if removed { Ok(()) } else { inner.with_netlink(|netlink| remove_one(netlink, &inner.echoes, &waiting)) };
        // Nobody waits any more: the link is gone all the same.
        drop(waiting.done.send(result));
    }
}

/// Removes a link that still is the one that was looked up.
fn remove_one(netlink: &mut Netlink, echoes: &Echoes, waiting: &Waiting) -> Result<(), KernelError> {
    if link::by_index(netlink, waiting.index)?.is_none_or(|link| link.alias != waiting.alias) {
        return Ok(());
    }
    link::remove(netlink, echoes, waiting.index)
}

/// Moves the links to a group of their own, looks that the group holds nothing else, and removes it.
fn remove_group(inner: &Inner, netlink: &mut Netlink, batch: &[Waiting]) -> Result<bool, KernelError> {
    let number = inner.leaving.batches.fetch_add(1, Ordering::Relaxed);
    let group = FIRST_GROUP | (number & 0xffff);
    let moves = batch.iter().map(|waiting| link::set_group(waiting.index, group)).collect();
    netlink.ask(moves)?.into_iter().try_for_each(gone_is_fine)?;
    let members: Vec<Link> = link::list(netlink)?.into_iter().filter(|link| link.group == group).collect();
    let all_leave = members
        .iter()
        .all(|link| batch.iter().any(|waiting| waiting.index == link.index && waiting.alias == link.alias));
    if members.is_empty() {
        return Ok(true);
    }
    if !all_leave {
        tracing::warn!(group, "a link group holds a link that is not leaving; removing one by one");
        return Ok(false);
    }
    for link in &members {
        inner.echoes.removing(link.index);
    }
    let delete = link::delete_group(group);
    let removed = gone_is_fine(netlink.one(delete.what, delete.message));
    for link in &members {
        inner.echoes.removed(link.index);
    }
    removed.map(|()| true)
}
