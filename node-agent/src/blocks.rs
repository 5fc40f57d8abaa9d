//! Brings every block of the ledger to where its state leads: exports what was claimed, gives back what is released, reads what is in
//! doubt. One task for each such block; every step looks at the state first, so what happened meanwhile always counts.

pub(crate) mod api;
pub(crate) mod read;
mod read_back;
mod release;
mod serve;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_api_client::{Clients, backoff};
use bobbin_observability::Watchdog;
use tokio::sync::Notify;

use crate::block_checkpoint::BlockCheckpoint;
use crate::claim::Exports;
use crate::event::Events;
use crate::freshness::Freshness;
use crate::ledger::{BlockState, Ledger};
use crate::record::Recorder;
use crate::times::Times;
use crate::watch::ClusterView;
use api::BlockApi;
pub(crate) use read_back::RECORDS_DEADLINE;

/// How often every block is checked without news.
const INTERVAL: Duration = Duration::from_secs(5);
/// The first pause after a step that failed, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// A step takes a few calls to the API server and the kernel, each with a deadline of its own; one that takes this long hangs.
const STEP_DEADLINE: Duration = Duration::from_mins(3);

/// What the tasks of blocks work with.
pub struct BlockTasks {
    /// The identity of this boot: records of another one are of nobody who lives.
    pub boot_id: String,
    /// The clients.
    pub clients: Clients,
    /// What is known of the cluster's objects.
    pub view: ClusterView,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The writer of the list of blocks.
    pub checkpoint: BlockCheckpoint,
    /// The kernel.
    pub exports: Arc<dyn Exports>,
    /// The records.
    pub recorder: Recorder,
    /// How fresh the API server's word is.
    pub freshness: Arc<Freshness>,
    /// Events on the node.
    pub events: Events,
    /// Waits.
    pub times: Times,
    /// Where they say that they make progress.
    pub watchdog: Watchdog,
}

/// Runs the tasks. Cheap to clone.
#[derive(Clone)]
pub struct Blocks(Arc<Inner>);

struct Inner {
    with: BlockTasks,
    api: BlockApi,
    /// Blocks that have a task.
    running: Mutex<HashSet<String>>,
    ended: Notify,
}

/// What a step leads to.
enum Step {
    /// The state is to be looked at again at once.
    Again,
    /// Something has to pass by itself: so long, or until the ledger changes.
    Wait(Duration),
    /// It failed: again after a pause that grows.
    Failed,
}

impl Blocks {
    /// For the blocks of a ledger.
    pub fn new(with: BlockTasks) -> Blocks {
        let api = BlockApi::new(&with.clients);
        Blocks(Arc::new(Inner { with, api, running: Mutex::default(), ended: Notify::new() }))
    }

    /// Looks after all blocks, for ever.
    pub async fn run(&self) {
        let mut changed = self.0.with.ledger.changed();
        loop {
            changed.mark_unchanged();
            for block in self.0.with.ledger.blocks() {
                if needs_work(block.state) && self.running().insert(block.held.name.clone()) {
                    tokio::spawn(self.clone().settle(block.held.name));
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = self.0.ended.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Works on one block until its state needs nothing more.
    async fn settle(self, name: String) {
        let beat = self.0.with.watchdog.register("block", STEP_DEADLINE);
        let mut failures = 0;
        let mut changed = self.0.with.ledger.changed();
        while let Some(state) = self.0.with.ledger.block_state(&name).filter(|state| needs_work(*state)) {
            changed.mark_unchanged();
            let step = match state {
                BlockState::Exporting { since, not_before } => self.0.serve(&name, since, not_before).await,
                BlockState::Releasing { stage, .. } => self.0.release(&name, stage).await,
                BlockState::Doubted { doubts, .. } => self.0.read_back(&name, doubts).await,
                _ => break,
            };
            let pause = match step {
                Step::Again => {
                    beat.beat();
                    failures = 0;
                    continue;
                }
                Step::Wait(pause) => pause,
                Step::Failed => {
                    failures += 1;
                    backoff(failures - 1, PAUSES[0], PAUSES[1])
                }
            };
            // Another state is another step, at once.
            let moved = async {
                while self.0.with.ledger.block_state(&name) == Some(state) {
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
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn needs_work(state: BlockState) -> bool {
    matches!(state, BlockState::Exporting { .. } | BlockState::Releasing { .. } | BlockState::Doubted { .. })
}
