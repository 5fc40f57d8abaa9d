//! Compares the IPAssignments, blocks and address conflicts in the node's state with the API server. A pass runs when the agent starts,
//! when a watch event requires one, and at regular intervals. If the agent misses a watch event, the next regular pass finds the change.

mod assignments;
mod blocks;
mod conflicts;
pub(crate) mod pod_absence;
pub(crate) mod stale_attachments;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, PartialNode, ReadError, backoff};
use bobbin_crds::AddressPool;
use bobbin_datapath::boot_time;
use bobbin_ipam::IpPair;
use bobbin_observability::Watchdog;
use jiff::Timestamp;
use kube::api::ListParams;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::args::timing::Times;
use crate::assignments::AssignmentWriter;
use crate::blocks::api_calls::BlockApi;
use crate::blocks::claim::Claims;
use crate::cluster::freshness::{FreshnessTracker, WatchedKind};
use crate::cluster::{ClusterCache, NodeInfo};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::recent_activity::RecentActivity;
use crate::resync::pod_absence::PodAbsenceTracker;
use crate::state::NodeState;
use crate::state::checkpoint::Checkpoint;
use assignments::AssignmentIdentity;

/// The pause between a trigger and its pass. All triggers that arrive during the pause share one pass.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long a pass may take before it counts as hanging. A pass makes a bounded number of calls, each with a timeout of a few seconds.
const PASS_DEADLINE: Duration = Duration::from_mins(5);
/// The first pause after a failed pass of the resync.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// The longest pause after failed passes of the resync.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// The task that compares the node's state with the API server.
pub struct Resync {
    /// The clients of the API server.
    pub clients: Clients,
    /// The cluster's objects, as the watches show them.
    pub cluster: ClusterCache,
    /// This node's blocks, addresses and attachments.
    pub node_state: Arc<NodeState>,
    /// Adds owned blocks that the node's state lacks.
    pub claims: Claims,
    /// Creates and deletes IPAssignments.
    pub assignment_writer: AssignmentWriter,
    /// How fresh the API server's answers are.
    pub freshness: Arc<FreshnessTracker>,
    /// The checkpoint, into which the resync writes cool-downs and conflicts.
    pub checkpoint: Checkpoint,
    /// Publishes events on the Node.
    pub events: Events,
    /// Counts passes and repairs.
    pub metrics: Metrics,
    /// Remembers the last pass for the status document.
    pub recent: Arc<RecentActivity>,
    /// The ID of the node's current boot.
    pub boot_id: String,
    /// The time between two comparisons without a trigger (`--relist-interval`).
    pub interval: Duration,
    /// The waiting times of the protocol between agents, operator and API server.
    pub times: Times,
    /// The watchdog to which the task reports its progress.
    pub beats: Watchdog,
    /// Triggers a pass of the resync.
    pub trigger: Arc<Notify>,
}

/// What the resync has done since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resynced {
    /// Whether the resync has compared the node's blocks with the API server.
    pub blocks: bool,
}

/// Why a pass of the resync failed.
#[derive(Debug, thiserror::Error)]
enum PassError {
    /// A read from the API server failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The agent has no copy of its Node. Every comparison needs this copy.
    #[error("the agent's own Node does not exist or can't be decoded")]
    NodeUnknown,
}

/// The results of earlier passes of the resync, kept for the next pass.
struct PassHistory {
    /// Tracks whether the pods of orphaned assignments are gone.
    orphans: PodAbsenceTracker<AssignmentIdentity>,
    assignments_due: Option<Instant>,
    conflicts_due: Option<Instant>,
    /// The last excluded address of which the previous pass read the assignment. The next pass continues after this address.
    last_conflict: Option<IpPair>,
    /// The number of invalidations at the start of the last pass that compared the assignments.
    invalidations: u64,
}

impl Resync {
    /// Runs the resync until the agent stops, and publishes its progress in `progress`.
    pub async fn run(self, progress: watch::Sender<Resynced>) {
        let orphans = PodAbsenceTracker::new(self.cluster.node_name(), self.times.pod_absence_interval());
        let mut history =
            PassHistory { orphans, assignments_due: None, conflicts_due: None, last_conflict: None, invalidations: 0 };
        let mut invalidations = self.freshness.invalidations();
        let beat = self.beats.register("resync", PASS_DEADLINE);
        let mut failures = 0;
        loop {
            let generation = *invalidations.borrow_and_update();
            let passed = self.pass(&mut history, generation, &progress).await;
            self.metrics.resync_ended(passed.is_ok());
            let next = match passed {
                Ok(next) => {
                    failures = 0;
                    self.recent.resync_succeeded(next, Timestamp::now());
                    next
                }
                Err(error) => {
                    if let PassError::Read(ReadError::Unreachable(why)) = &error {
                        self.freshness.observe_call(Some(why), boot_time());
                    }
                    tracing::debug!(%error, "comparing the node's state with the API server failed; the agent retries");
                    failures += 1;
                    let next = backoff(failures - 1, MIN_RETRY_INTERVAL, MAX_RETRY_INTERVAL);
                    self.recent.resync_failed(&error.to_string(), next, Timestamp::now());
                    next
                }
            };
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(next) => {}
                    // After a failed pass, triggers must not shorten the pause before the retry.
                    () = self.trigger.notified(), if failures == 0 => tokio::time::sleep(DEBOUNCE).await,
                    // `freshness` owns the sender, so waiting for a change never fails.
                    _ = invalidations.changed(), if failures == 0 => tokio::time::sleep(DEBOUNCE).await,
                }
            };
            beat.while_idle(pause).await;
        }
    }

    /// Runs one pass. Returns the time until the next pass. A trigger may start the next pass earlier.
    async fn pass(
        &self,
        history: &mut PassHistory,
        generation: u64,
        progress: &watch::Sender<Resynced>,
    ) -> Result<Duration, PassError> {
        let now = Instant::now();
        // The pause is a random time of 100 to 150 % of the interval, so that the nodes don't send their LIST requests together.
        let interval = self.times.resync(self.interval);
        let interval = interval / 2 + bobbin_api_client::backoff::jittered(interval);
        self.compare_node().await?;
        if history.assignments_due.is_some_and(|due| due <= now) {
            self.compare_pools().await?;
        }
        // Create missing assignments before comparing blocks. If another node claims one of this node's blocks after an outage, that node
        // then finds the assignments of this node's pods.
        if history.assignments_due.is_none_or(|due| due <= now) || history.invalidations != generation {
            let blocks_known = progress.borrow().blocks;
            let again = self.compare_assignments(history, blocks_known).await?;
            history.invalidations = generation;
            history.assignments_due = Some(now + again.unwrap_or(interval).min(interval));
        }
        let listed = self.compare_blocks().await?;
        self.cluster.set_own_blocks_known();
        progress.send_modify(|done| done.blocks = true);
        self.list_assignments_of_new_blocks(listed).await?;
        if history.conflicts_due.is_none_or(|due| due <= now) {
            history.last_conflict = self.recheck_conflicts(history.last_conflict).await;
            history.conflicts_due = Some(now + self.times.conflict_recheck_interval());
        }
        let mut next = history.assignments_due.map_or(interval, |due| due.saturating_duration_since(Instant::now()));
        if !self.node_state.conflicts().is_empty() {
            next = next.min(self.times.conflict_recheck_interval());
        }
        Ok(next.max(DEBOUNCE))
    }

    fn block_api(&self) -> BlockApi {
        BlockApi::new(&self.clients)
    }

    /// The ranges of the blocks that this node owns.
    fn own_ranges(&self) -> BTreeMap<String, bobbin_ipam::BlockRange> {
        let owned = self.node_state.blocks().into_iter().filter(|block| block.state.counts_as_ours());
        owned.map(|block| (block.held.name, block.held.range)).collect()
    }

    /// Reads the pools with a consistent list. If the watch lost an event, the cache may not show that a pool is draining.
    async fn compare_pools(&self) -> Result<(), ReadError> {
        let api: kube::Api<Lenient<AddressPool>> = kube::Api::all(self.clients.requests.clone());
        let list =
            bobbin_api_client::read(crate::blocks::api_calls::CALL_TIMEOUT, api.list(&ListParams::default())).await?;
        self.cluster.update_pools(list.items);
        Ok(())
    }

    /// Reads the agent's own Node with a consistent read.
    async fn compare_node(&self) -> Result<(), PassError> {
        // While the watch of the Node is active, the agent does not have to read the Node.
        let silence = self.freshness.silence(boot_time())[WatchedKind::Node as usize];
        if self.cluster.node().is_some() && silence.is_some_and(|silence| silence < self.times.max_watch_silence()) {
            return Ok(());
        }
        let api: kube::Api<Lenient<PartialNode>> = kube::Api::all(self.clients.requests.clone());
        let (start, reports) = (self.freshness.begin_read(boot_time()), self.cluster.node_updates());
        let node =
            match bobbin_api_client::read(crate::blocks::api_calls::CALL_TIMEOUT, api.get(self.cluster.node_name()))
                .await
            {
                Ok(node) => match NodeInfo::of(&node) {
                    Ok(node) => Some(node),
                    // The Node exists, but can't be decoded. The cache keeps the last version that the agent could decode.
                    Err(_) => return if self.cluster.node().is_some() { Ok(()) } else { Err(PassError::NodeUnknown) },
                },
                Err(ReadError::NotFound) => None,
                Err(error) => return Err(error.into()),
            };
        self.freshness.answered(boot_time());
        self.freshness.list_answered(WatchedKind::Node, start);
        let absent = node.is_none();
        crate::cluster::own_objects::apply_own_node(
            &self.cluster,
            &self.node_state,
            &self.freshness,
            &Notify::new(),
            node,
            Some(reports),
        );
        if absent && self.cluster.node().is_none() { Err(PassError::NodeUnknown) } else { Ok(()) }
    }
}
