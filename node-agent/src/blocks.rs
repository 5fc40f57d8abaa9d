//! Brings every block of the ledger to where its state leads: exports what was claimed, gives back what is released, reads what is in
//! doubt. One task for each such block; every step looks at the state first, so what happened meanwhile always counts.

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
use bobbin_observability::Progress;
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

/// How often every block is checked without news.
const RESYNC_INTERVAL: Duration = Duration::from_secs(5);
/// The first pause after a step that failed, and the longest.
const RETRY_BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// A step takes a few calls to the API server and the kernel, each with a deadline of its own; one that takes this long hangs.
const STEP_PROGRESS_DEADLINE: Duration = Duration::from_mins(3);

/// What the tasks of blocks work with.
pub struct BlockContext {
    /// The identity of this boot: records of another one are of nobody who lives.
    pub boot_id: String,
    /// The clients.
    pub clients: Clients,
    /// What is known of the cluster's objects.
    pub cluster: ClusterCache,
    /// The ledger.
    pub node_state: Arc<NodeState>,
    /// The writer of the list of blocks.
    pub checkpoint: BlockCheckpoint,
    /// The kernel.
    pub exports: Arc<dyn Exports>,
    /// The records.
    pub assignment_writer: AssignmentWriter,
    /// How fresh the API server's word is.
    pub freshness: Arc<FreshnessTracker>,
    /// Events on the node.
    pub events: Events,
    /// Waits.
    pub times: Times,
    /// Where they say that they make progress.
    pub progress: Progress,
}

/// Runs the tasks. Cheap to clone.
#[derive(Clone)]
pub struct BlockReconciler(Arc<ReconcilerState>);

struct ReconcilerState {
    context: BlockContext,
    api: BlockApi,
    /// Blocks that have a task.
    running: Mutex<HashSet<String>>,
    ended: Notify,
}

/// What a step leads to.
enum Requeue {
    /// The state is to be looked at again at once.
    Now,
    /// Something has to pass by itself: so long, or until the ledger changes.
    After(Duration),
    /// It failed: again after a pause that grows.
    WithBackoff,
}

impl BlockReconciler {
    /// For the blocks of a ledger.
    pub fn new(context: BlockContext) -> BlockReconciler {
        let api = BlockApi::new(&context.clients);
        BlockReconciler(Arc::new(ReconcilerState { context, api, running: Mutex::default(), ended: Notify::new() }))
    }

    /// Looks after all blocks, for ever.
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

    /// Works on one block until its state needs nothing more.
    async fn reconcile_block(self, name: String) {
        let beat = self.0.context.progress.register("block", STEP_PROGRESS_DEADLINE);
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
                    beat.made();
                    failures = 0;
                    continue;
                }
                Requeue::After(pause) => pause,
                Requeue::WithBackoff => {
                    failures += 1;
                    backoff(failures - 1, RETRY_BACKOFF[0], RETRY_BACKOFF[1])
                }
            };
            // Another state is another step, at once.
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
