//! The watches of this node's own Node and own blocks. Unlike kube's watcher they see bookmarks, notice silence, and never resume with an
//! old resourceVersion after anything but their own timeout. What they see takes effect in the callback: doubt waits behind nothing.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, PartialNode, ReadError, backoff};
use bobbin_crds::AddressBlock;
use bobbin_datapath::boot_time;
use bobbin_observability::{Heartbeat, Watchdog};
use futures::{StreamExt, TryStreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::blocks::read::{BlockRead, Owner};
use crate::freshness::{Freshness, Kind, ReadStart, Trouble};
use crate::ledger::{BlockEvent, BlockState, Ledger};
use crate::watch::{ClusterView, NodeFacts};

/// How long a list, and the opening of a watch, may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the API server keeps a watch open: the longest that kube allows (it refuses 295 s and more).
const WATCH_TIMEOUT: Duration = Duration::from_secs(294);
/// A watch that ended this much before its timeout was ended by something else.
const EARLY_CLOSE_MARGIN: Duration = Duration::from_secs(5);
/// The first pause after a watch broke; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A list and what is made of it take much less, or fail; waits for events and pauses don't count.
const PROGRESS_DEADLINE: Duration = Duration::from_mins(2);

/// What the watches act on.
#[derive(Clone)]
pub struct OwnWatches {
    /// The clients.
    pub clients: Clients,
    /// What is known of the cluster's objects.
    pub view: ClusterView,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// How fresh the API server's word is.
    pub freshness: Arc<Freshness>,
    /// Wakes the resync.
    pub resync: Arc<Notify>,
    /// Where they say that they make progress.
    pub watchdog: Watchdog,
}

/// What a watch shows.
enum Seen<K> {
    /// All there is, by a consistent read that was begun then.
    All(Vec<K>, ReadStart),
    Is(K),
    /// The object left what is watched, or is gone.
    Left(K),
}

/// Why a watch has to begin with a list.
enum Broke {
    /// The connection ended, or the API server said so: it was in contact until now.
    Closed,
    /// Nothing was heard of it.
    Silent,
}

impl OwnWatches {
    /// Watches for ever.
    pub async fn run(self) {
        let node = format!("metadata.name={}", self.view.node_name());
        let blocks = format!("spec.nodeName={}", self.view.node_name());
        tokio::join!(
            self.follow(Kind::Node, node, Api::<Lenient<PartialNode>>::all(self.clients.watches.clone()), |seen| self
                .node(&seen)),
            self.follow(
                Kind::Blocks,
                blocks,
                Api::<Lenient<AddressBlock>>::all(self.clients.watches.clone()),
                |seen| self.block(seen)
            ),
        );
    }

    /// Lists and watches, again and again.
    async fn follow<K>(&self, kind: Kind, fields: String, api: Api<K>, mut see: impl FnMut(Seen<K>))
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug,
    {
        let beat = self.watchdog.register(kind.name(), PROGRESS_DEADLINE);
        let mut failures = 0_u32;
        let longest_pause = self.freshness.times().watch_reconnect();
        loop {
            let begun = Instant::now();
            let (start, floor) = (self.freshness.begin_read(boot_time()), self.freshness.version(kind));
            let listed = bobbin_api_client::read(DEADLINE, api.list(&ListParams::default().fields(&fields))).await;
            match listed {
                Ok(list) => {
                    self.freshness.answered(boot_time());
                    let version = list.metadata.resource_version.clone().unwrap_or_default();
                    // A list that went back is still the truth of now; the proof that it gives counts from a new generation.
                    let start = if self.freshness.saw_version(kind, &version, floor) {
                        self.freshness.begin_read(boot_time())
                    } else {
                        start
                    };
                    self.freshness.read(kind, start);
                    see(Seen::All(list.items, start));
                    if matches!(self.watch(kind, &fields, &api, version, &beat, &mut see).await, Broke::Closed) {
                        self.freshness.in_contact(boot_time());
                    }
                    self.freshness.failed();
                    self.freshness.trouble(Trouble::WatchBroke);
                }
                Err(error) => {
                    if let ReadError::Unreachable(why) = &error {
                        self.freshness.outcome(Some(why), boot_time());
                    }
                    self.freshness.failed();
                    if failures == 0 {
                        tracing::info!(?kind, %error, "the node's own objects can't be listed; trying again");
                    }
                }
            }
            // Who lists well and is refused the watch must not ask without pause.
            if begun.elapsed() > 2 * longest_pause {
                failures = 0;
            }
            beat.while_idle(tokio::time::sleep(backoff(failures, FIRST_PAUSE, longest_pause))).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Watches until the watch breaks. Its own timeout is no break: it goes on where it was.
    async fn watch<K>(
        &self,
        kind: Kind,
        fields: &str,
        api: &Api<K>,
        mut version: String,
        beat: &Heartbeat,
        see: &mut impl FnMut(Seen<K>),
    ) -> Broke
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug,
    {
        let params = WatchParams::default().fields(fields).timeout(WATCH_TIMEOUT.as_secs() as u32);
        loop {
            let begun = Instant::now();
            let opened = match timeout(DEADLINE, api.watch(&params, &version)).await {
                Ok(Ok(stream)) => stream.boxed(),
                Ok(Err(error)) => {
                    tracing::info!(?kind, %error, "a watch can't be opened; listing again");
                    return Broke::Closed;
                }
                Err(_) => return Broke::Silent,
            };
            let mut events = opened;
            loop {
                let event = match beat.while_idle(timeout(WATCH_TIMEOUT + EARLY_CLOSE_MARGIN, events.try_next())).await
                {
                    Err(_) => return Broke::Silent,
                    Ok(Err(error)) => {
                        tracing::info!(?kind, %error, "a watch broke; listing again");
                        return Broke::Closed;
                    }
                    Ok(Ok(None)) => break,
                    Ok(Ok(Some(event))) => event,
                };
                let before = version.parse().unwrap_or_default();
                let seen = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        version = object.resource_version().unwrap_or(version);
                        Some(Seen::Is(object))
                    }
                    WatchEvent::Deleted(object) => {
                        version = object.resource_version().unwrap_or(version);
                        Some(Seen::Left(object))
                    }
                    WatchEvent::Bookmark(bookmark) => {
                        version = bookmark.metadata.resource_version;
                        None
                    }
                    WatchEvent::Error(status) => {
                        tracing::info!(?kind, %status, "the API server ended a watch; listing again");
                        return Broke::Closed;
                    }
                };
                self.freshness.heard(kind, boot_time());
                self.freshness.saw_version(kind, &version, before);
                if let Some(seen) = seen {
                    see(seen);
                }
            }
            if begun.elapsed() + EARLY_CLOSE_MARGIN < WATCH_TIMEOUT {
                tracing::info!(?kind, "the API server closed a watch early; listing again");
                return Broke::Closed;
            }
        }
    }

    fn node(&self, seen: &Seen<Lenient<PartialNode>>) {
        let node = match seen {
            Seen::All(nodes, _) => nodes.first(),
            Seen::Is(node) => Some(node),
            Seen::Left(_) => None,
        };
        if let Some(node) = node {
            let _ = self.view.unreadable().note(node);
        }
        // A Node that can't be read is there, as it was.
        let Ok(node) = node.map(NodeFacts::of).transpose() else { return };
        node_seen(&self.view, &self.ledger, &self.freshness, &self.resync, node, None);
    }

    fn block(&self, seen: Seen<Lenient<AddressBlock>>) {
        match seen {
            Seen::All(blocks, start) => {
                self.view.unreadable().listed(&blocks);
                let read: Vec<BlockRead> = blocks.iter().map(BlockRead::of).collect();
                self.all_blocks(&read, start);
            }
            Seen::Is(block) => {
                let _ = self.view.unreadable().note(&block);
                self.block_is(&BlockRead::of(&block));
            }
            Seen::Left(block) => {
                self.view.unreadable().gone(&block);
                self.ledger.on(block.name(), BlockEvent::Doubt);
            }
        }
    }

    fn all_blocks(&self, listed: &[BlockRead], start: ReadStart) {
        let node = self.view.node();
        for held in self.ledger.blocks() {
            let read = listed.iter().find(|read| read.name == held.held.name);
            match (read, &node) {
                (Some(read), Some(node)) if read.owner(node) == Owner::Us => {
                    self.ledger.refresh(&read.name, &read.uid, &read.resource_version, read.deleting);
                    self.ledger.prove(&read.name, start.proof(), false);
                }
                (Some(read), _) if !read.readable => {}
                _ => {
                    self.ledger.on(&held.held.name, BlockEvent::Doubt);
                }
            }
        }
        if listed.iter().any(|read| self.ledger.block_state(&read.name).is_none()) {
            self.resync.notify_one();
        }
    }

    fn block_is(&self, read: &BlockRead) {
        let Some(node) = self.view.node() else {
            self.ledger.on(&read.name, BlockEvent::Doubt);
            return;
        };
        match (read.owner(&node), self.ledger.block_state(&read.name)) {
            (Owner::Us, Some(BlockState::Claiming { .. }))
            | (Owner::Nobody | Owner::Others, None)
            | (Owner::Unknown, _) => {}
            (Owner::Us, Some(BlockState::Lost)) | (Owner::Us | Owner::EarlierSelf, None) => self.resync.notify_one(),
            (Owner::Us, Some(_)) => {
                self.ledger.refresh(&read.name, &read.uid, &read.resource_version, read.deleting);
                if !read.names_addresses_of(&node) {
                    self.resync.notify_one();
                }
            }
            (_, Some(_)) => {
                self.ledger.on(&read.name, BlockEvent::Doubt);
            }
        }
    }
}

/// Takes in the own Node as it was read: another UID, a deletion or the out-of-service taint puts every block in doubt at once. `as_of`: see
/// [`ClusterView::saw_node`].
pub(crate) fn node_seen(
    view: &ClusterView,
    ledger: &Ledger,
    freshness: &Freshness,
    resync: &Notify,
    node: Option<NodeFacts>,
    as_of: Option<u64>,
) {
    let change = view.saw_node(node, as_of);
    if change.replaced {
        freshness.trouble(Trouble::NodeReplaced);
    }
    if change.doubt {
        ledger.doubt_all();
    }
    if change.any {
        resync.notify_one();
    }
}
