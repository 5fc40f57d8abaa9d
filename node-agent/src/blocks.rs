//! Reconciles every block of the node's state: exports claimed blocks, releases unwanted blocks, and reads blocks that the node may have
//! lost (doubted blocks).
//!
//! Each block that needs work has one task. Every step first reads the block's state, because the state may have changed since the last
//! step.

pub(crate) mod api_calls;
pub(crate) mod claim;
pub(crate) mod demand;
mod enter_service;
pub(crate) mod read;
mod read_back;
mod release;
pub(crate) mod simulated_node;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Clients, backoff};
use bobbin_observability::Watchdog;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::args::timing::Times;
use crate::assignments::AssignmentWriter;
use crate::blocks::claim::Exports;
use crate::cluster::ClusterCache;
use crate::cluster::freshness::FreshnessTracker;
use crate::events::Events;
use crate::state::checkpoint::blocks::BlockCheckpoint;
use crate::state::{BlockState, NodeState};
use api_calls::BlockApi;
pub(crate) use read_back::RECREATE_TIMEOUT;

/// How often the agent checks all blocks if no block changes.
const RESYNC_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest and the longest pause before the agent repeats a failed step for a block.
const RETRY_BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// How long a step for a block may take before the watchdog treats the step as hanging. Each call that a step makes to the API server or
/// the kernel has its own, shorter timeout.
const STEP_PROGRESS_DEADLINE: Duration = Duration::from_mins(3);

/// The clients, caches and settings for the tasks that claim, check and release the node's blocks.
pub struct BlockContext {
    /// The ID of the current boot. Assignments of an earlier boot belong to no running container.
    pub boot_id: String,
    /// The clients of the API server.
    pub clients: Clients,
    /// The cached objects of the cluster.
    pub cluster: ClusterCache,
    /// The node's blocks and attachments.
    pub node_state: Arc<NodeState>,
    /// Saves the list of the node's blocks.
    pub checkpoint: BlockCheckpoint,
    /// Exports and withdraws the routes of blocks.
    pub exports: Arc<dyn Exports>,
    /// Creates and deletes assignments.
    pub assignment_writer: AssignmentWriter,
    /// Tracks how fresh the API server's answers are.
    pub freshness: Arc<FreshnessTracker>,
    /// Publishes events on the Node.
    pub events: Events,
    /// The waiting times of the protocol between agents, operator and API server.
    pub times: Times,
    /// The watchdog to which the tasks report their progress.
    pub watchdog: Watchdog,
}

/// Reconciles the node's blocks. Cheap to clone.
#[derive(Clone)]
pub struct BlockReconciler(Arc<ReconcilerState>);

struct ReconcilerState {
    context: BlockContext,
    api: BlockApi,
    /// The names of the blocks on which a task is currently working.
    running: Mutex<HashSet<String>>,
    ended: Notify,
}

/// When the next step of a block is due.
enum Requeue {
    /// The block's next step is due at once.
    Now,
    /// The block's next step is due after this time, or earlier if the block's state changes.
    After(Duration),
    /// The last step failed, so the block's next step is due after a pause that grows with each failure.
    WithBackoff,
}

impl BlockReconciler {
    /// Creates the reconciler; [`BlockReconciler::run`] starts its tasks.
    pub fn new(context: BlockContext) -> BlockReconciler {
        let api = BlockApi::new(&context.clients);
        BlockReconciler(Arc::new(ReconcilerState { context, api, running: Mutex::default(), ended: Notify::new() }))
    }

    /// Starts a task for each block that needs work, until the agent stops.
    pub async fn run(&self) {
        let mut changed = self.0.context.node_state.changed();
        loop {
            changed.mark_unchanged();
            for block in self.0.context.node_state.blocks() {
                if needs_work(block.state) && self.running().insert(block.held.name.clone()) {
                    tokio::spawn(self.clone().reconcile_block(block.held.name));
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = self.0.ended.notified() => {}
                () = tokio::time::sleep(RESYNC_INTERVAL) => {}
            }
        }
    }

    /// Reconciles one block until its state needs no more work.
    async fn reconcile_block(self, name: String) {
        let beat = self.0.context.watchdog.register("block reconcile", STEP_PROGRESS_DEADLINE);
        let mut failures = 0;
        let mut changed = self.0.context.node_state.changed();
        while let Some(state) = self.0.context.node_state.block_state(&name).filter(|state| needs_work(*state)) {
            changed.mark_unchanged();
            let step = match state {
                BlockState::Exporting { since, not_before } => self.0.enter_service(&name, since, not_before).await,
                BlockState::Releasing { stage, .. } => self.0.release(&name, stage).await,
                BlockState::Doubted { doubts, .. } => self.0.read_back(&name, doubts).await,
                _ => break,
            };
            let pause = match step {
                Requeue::Now => {
                    beat.beat();
                    failures = 0;
                    continue;
                }
                Requeue::After(pause) => pause,
                Requeue::WithBackoff => {
                    failures += 1;
                    backoff(failures - 1, RETRY_BACKOFF[0], RETRY_BACKOFF[1])
                }
            };
            // A change of the block's state ends the pause.
            let moved = async {
                while self.0.context.node_state.block_state(&name) == Some(state) {
                    if changed.changed().await.is_err() {
                        return;
                    }
                }
            };
            let _ = beat.while_idle(tokio::time::timeout(pause, moved)).await;
        }
        self.running().remove(&name);
        self.0.ended.notify_one();
    }

    fn running(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.running.lock()
    }
}

fn needs_work(state: BlockState) -> bool {
    matches!(state, BlockState::Exporting { .. } | BlockState::Releasing { .. } | BlockState::Doubted { .. })
}
