//! Watches this agent's Node and this node's blocks.
//!
//! Unlike kube's watcher, these watches process bookmarks and notice when the API server is silent. A watch that ends after its own timeout
//! resumes at the last resourceVersion. After any other end, the agent lists the objects again. The watches apply each update at once, so a
//! block that the node may have lost becomes doubted without delay.

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

use crate::blocks::read::{BlockInfo, Owner};
use crate::cluster::freshness::{FreshnessTracker, Invalidation, ReadStart, WatchedKind};
use crate::cluster::{ClusterCache, NodeInfo};
use crate::state::{BlockEvent, BlockState, NodeState};

/// How long a LIST request or the opening of a watch may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the API server keeps a watch open. kube refuses values of 295 s and more.
const WATCH_TIMEOUT: Duration = Duration::from_secs(294);
/// The tolerance around the timeout of a watch. A watch that ends earlier than its timeout by more than this margin counts as broken. A
/// watch that sends nothing until this margin after its timeout counts as silent.
const EARLY_CLOSE_MARGIN: Duration = Duration::from_secs(5);
/// The first pause after a watch broke. Each further pause is twice as long, up to a limit.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// A watch that makes no progress for this long counts as hanging. Time spent waiting for events or pausing does not count.
const PROGRESS_DEADLINE: Duration = Duration::from_mins(2);

/// The parts of the agent that these watches use.
#[derive(Clone)]
pub struct OwnWatches {
    /// The clients of the API server.
    pub clients: Clients,
    /// The cached objects of the cluster.
    pub cluster: ClusterCache,
    /// The node's blocks.
    pub node_state: Arc<NodeState>,
    /// How fresh the API server's answers are.
    pub freshness: Arc<FreshnessTracker>,
    /// Wakes the resync.
    pub resync_trigger: Arc<Notify>,
    /// The watchdog to which the watches report their progress.
    pub watchdog: Watchdog,
}

/// An update that a watch delivers.
enum WatchUpdate<K> {
    /// All objects that match the watch, and the start of the consistent read that returned them.
    Listed(Vec<K>, ReadStart),
    Changed(K),
    /// The object is gone or no longer matches the watch.
    Removed(K),
}

/// Why a watch ended, other than by its timeout. The agent must then list the objects again.
enum WatchEnd {
    /// The connection broke or the API server ended the watch. The agent had contact with the API server until then.
    Closed,
    /// The watch was silent for too long, or the agent got no answer when it opened the watch.
    Silent,
}

impl OwnWatches {
    /// Watches this agent's Node and this node's blocks until the agent stops.
    pub async fn run(self) {
        let node = format!("metadata.name={}", self.cluster.node_name());
        let blocks = format!("spec.nodeName={}", self.cluster.node_name());
        tokio::join!(
            self.list_and_watch(
                WatchedKind::Node,
                node,
                Api::<Lenient<PartialNode>>::all(self.clients.watches.clone()),
                |seen| self.node(&seen)
            ),
            self.list_and_watch(
                WatchedKind::Blocks,
                blocks,
                Api::<Lenient<AddressBlock>>::all(self.clients.watches.clone()),
                |seen| self.block(seen)
            ),
        );
    }

    /// Lists and watches the objects of one kind, and starts again whenever the watch ends.
    async fn list_and_watch<K>(
        &self,
        kind: WatchedKind,
        fields: String,
        api: Api<K>,
        mut handle: impl FnMut(WatchUpdate<K>),
    ) where
        K: kube::Resource + Clone + DeserializeOwned + Debug,
    {
        let beat = self.watchdog.register(kind.name(), PROGRESS_DEADLINE);
        let mut failures = 0_u32;
        let max_retry_interval = self.freshness.times().watch_reconnect();
        loop {
            let begun = Instant::now();
            let (start, floor) = (self.freshness.begin_read(boot_time()), self.freshness.version(kind));
            let listed = bobbin_api_client::read(CALL_TIMEOUT, api.list(&ListParams::default().fields(&fields))).await;
            match listed {
                Ok(list) => {
                    self.freshness.answered(boot_time());
                    let version = list.metadata.resource_version.clone().unwrap_or_default();
                    // If the response's resourceVersion is lower than an earlier one, an older snapshot of etcd was restored, and all
                    // proofs become invalid. The response shows the state after the restore. So it counts as a read that began after the
                    // invalidation.
                    let start = if self.freshness.observe_version(kind, &version, floor) {
                        self.freshness.begin_read(boot_time())
                    } else {
                        start
                    };
                    self.freshness.list_answered(kind, start);
                    handle(WatchUpdate::Listed(list.items, start));
                    if matches!(self.watch(kind, &fields, &api, version, &beat, &mut handle).await, WatchEnd::Closed) {
                        self.freshness.watch_alive(boot_time());
                    }
                    self.freshness.call_failed(boot_time());
                    self.freshness.invalidate(Invalidation::WatchBroke);
                }
                Err(error) => {
                    if let ReadError::Unreachable(why) = &error {
                        self.freshness.observe_call(Some(why), start.at());
                        self.freshness.call_failed(start.at());
                    } else {
                        self.freshness.list_refused();
                    }
                    if failures == 0 {
                        tracing::info!(?kind, %error, "the agent can't list the node's own objects; the agent retries");
                    }
                }
            }
            // Pause even after a successful LIST request. Otherwise an agent that may list but not watch would send LIST requests in a
            // tight loop.
            if begun.elapsed() > 2 * max_retry_interval {
                failures = 0;
            }
            beat.while_idle(tokio::time::sleep(backoff(failures, MIN_RETRY_INTERVAL, max_retry_interval))).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Watches the objects, and opens the watch again each time it ends after its own timeout. Returns when the watch ends for another
    /// reason.
    async fn watch<K>(
        &self,
        kind: WatchedKind,
        fields: &str,
        api: &Api<K>,
        mut version: String,
        beat: &Heartbeat,
        handle: &mut impl FnMut(WatchUpdate<K>),
    ) -> WatchEnd
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug,
    {
        let params = WatchParams::default().fields(fields).timeout(WATCH_TIMEOUT.as_secs() as u32);
        loop {
            let begun = Instant::now();
            let opened = match timeout(CALL_TIMEOUT, api.watch(&params, &version)).await {
                Ok(Ok(stream)) => stream.boxed(),
                Ok(Err(error)) => {
                    tracing::info!(?kind, %error, "the agent could not open a watch; the agent lists the objects again");
                    // An error response from the API server shows that the agent has contact with it. Any other error gives no evidence of
                    // contact.
                    return if matches!(error, kube::Error::Api(_)) { WatchEnd::Closed } else { WatchEnd::Silent };
                }
                Err(_) => return WatchEnd::Silent,
            };
            let mut events = opened;
            loop {
                let event = match beat.while_idle(timeout(WATCH_TIMEOUT + EARLY_CLOSE_MARGIN, events.try_next())).await
                {
                    Err(_) => return WatchEnd::Silent,
                    Ok(Err(error)) => {
                        tracing::info!(?kind, %error, "a watch broke; the agent lists the objects again");
                        return WatchEnd::Closed;
                    }
                    Ok(Ok(None)) => break,
                    Ok(Ok(Some(event))) => event,
                };
                let before = version.parse().unwrap_or_default();
                let seen = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        version = object.resource_version().unwrap_or(version);
                        Some(WatchUpdate::Changed(object))
                    }
                    WatchEvent::Deleted(object) => {
                        version = object.resource_version().unwrap_or(version);
                        Some(WatchUpdate::Removed(object))
                    }
                    WatchEvent::Bookmark(bookmark) => {
                        version = bookmark.metadata.resource_version;
                        None
                    }
                    WatchEvent::Error(status) => {
                        tracing::info!(?kind, %status, "the API server ended a watch; the agent lists the objects again");
                        return WatchEnd::Closed;
                    }
                };
                self.freshness.watch_active(kind, boot_time());
                self.freshness.observe_version(kind, &version, before);
                if let Some(seen) = seen {
                    handle(seen);
                }
            }
            if begun.elapsed() + EARLY_CLOSE_MARGIN < WATCH_TIMEOUT {
                tracing::info!(?kind, "the API server closed a watch early; the agent lists the objects again");
                return WatchEnd::Closed;
            }
        }
    }

    fn node(&self, seen: &WatchUpdate<Lenient<PartialNode>>) {
        let node = match seen {
            WatchUpdate::Listed(nodes, _) => nodes.first(),
            WatchUpdate::Changed(node) => Some(node),
            WatchUpdate::Removed(_) => None,
        };
        if let Some(node) = node {
            let _ = self.cluster.unreadable().note(node);
        }
        // If the Node can't be decoded, the cache keeps the last version that the agent could decode.
        let Ok(node) = node.map(NodeInfo::of).transpose() else { return };
        apply_own_node(&self.cluster, &self.node_state, &self.freshness, &self.resync_trigger, node, None);
    }

    fn block(&self, seen: WatchUpdate<Lenient<AddressBlock>>) {
        match seen {
            WatchUpdate::Listed(blocks, start) => {
                self.cluster.unreadable().listed(&blocks);
                let read: Vec<BlockInfo> = blocks.iter().map(BlockInfo::of).collect();
                self.blocks_listed(&read, start);
            }
            WatchUpdate::Changed(block) => {
                let _ = self.cluster.unreadable().note(&block);
                self.block_changed(&BlockInfo::of(&block));
            }
            WatchUpdate::Removed(block) => {
                self.cluster.unreadable().gone(&block);
                self.node_state.on(block.name(), BlockEvent::Doubt);
            }
        }
    }

    fn blocks_listed(&self, listed: &[BlockInfo], start: ReadStart) {
        let node = self.cluster.node();
        for held in self.node_state.blocks() {
            let read = listed.iter().find(|read| read.name == held.held.name);
            match (read, &node) {
                (Some(read), Some(node)) if read.owner_of(&held.held, node) == Owner::ThisNode => {
                    self.node_state.refresh(&read.name, &read.uid, &read.resource_version, read.deleting);
                    self.node_state.prove(&read.name, start.proof(), false);
                }
                (Some(read), _) if !read.readable => {}
                _ => {
                    self.node_state.on(&held.held.name, BlockEvent::Doubt);
                }
            }
        }
        // If the answer to a claim was lost, the list may be the only evidence that the claim succeeded.
        for read in listed.iter().filter(|read| node.as_ref().is_some_and(|node| read.owner(node) == Owner::ThisNode)) {
            self.node_state.on(&read.name, BlockEvent::SeenOwned);
        }
        if listed.iter().any(|read| self.node_state.block_state(&read.name).is_none()) {
            self.resync_trigger.notify_one();
        }
    }

    fn block_changed(&self, read: &BlockInfo) {
        let Some(node) = self.cluster.node() else {
            self.node_state.on(&read.name, BlockEvent::Doubt);
            return;
        };
        let known = self.node_state.block(&read.name);
        let owner = known.as_ref().map_or_else(|| read.owner(&node), |known| read.owner_of(&known.held, &node));
        match (owner, self.node_state.block_state(&read.name)) {
            (Owner::ThisNode, Some(BlockState::Claiming { .. })) => {
                self.node_state.on(&read.name, BlockEvent::SeenOwned);
            }
            (Owner::Free | Owner::OtherNode, None) | (Owner::Unknown, _) => {}
            (Owner::ThisNode, Some(BlockState::Lost)) | (Owner::ThisNode | Owner::EarlierNode, None) => {
                self.resync_trigger.notify_one();
            }
            (Owner::ThisNode, Some(_)) => {
                self.node_state.refresh(&read.name, &read.uid, &read.resource_version, read.deleting);
                if !read.names_addresses_of(&node) {
                    self.resync_trigger.notify_one();
                }
            }
            (_, Some(_)) => {
                self.node_state.on(&read.name, BlockEvent::Doubt);
            }
        }
    }
}

/// Applies an update of this agent's Node. A new UID, a deletion or the out-of-service taint puts every block in doubt at once.
///
/// For the meaning of `as_of`, see [`ClusterCache::update_node`].
pub(crate) fn apply_own_node(
    cluster: &ClusterCache,
    node_state: &NodeState,
    freshness: &FreshnessTracker,
    resync_trigger: &Notify,
    node: Option<NodeInfo>,
    as_of: Option<u64>,
) {
    let change = cluster.update_node(node, as_of);
    if change.replaced {
        freshness.invalidate(Invalidation::NodeReplaced);
    }
    if change.doubt {
        node_state.doubt_all();
    }
    if change.any {
        resync_trigger.notify_one();
    }
}
