//! A node that claims and releases blocks and does nothing else: no pods, no kernel. For tests and benchmarks of the protocol with
//! thousands of nodes against a real API server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::Clients;
use bobbin_datapath::boot_time;
use bobbin_observability::Watchdog;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::block_checkpoint::BlockCheckpoint;
use crate::blocks::{BlockTasks, Blocks};
use crate::claim::{Claims, Exports};
use crate::event::Events;
use crate::freshness::{Freshness, Proof};
use crate::journal::{Journal, JournalError};
use crate::ledger::Ledger;
use crate::record::Recorder;
use crate::times::Times;
use crate::watch::ClusterView;

/// Why a claiming node did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClaimingError {
    /// Its run directory can't be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its queue of deletions can't be made.
    #[error("the queue of deletions can't be made: {0}")]
    Deletions(#[from] std::io::Error),
}

/// One such node. Dropped, it ends.
pub struct SimulatedNode {
    /// Claims for it.
    pub claims: Claims,
    /// Its blocks.
    pub ledger: Arc<Ledger>,
    /// What it knows of the cluster: what lies in its run directory, for it watches nothing.
    pub view: ClusterView,
    freshness: Arc<Freshness>,
    _tasks: JoinSet<()>,
}

impl SimulatedNode {
    /// Starts one with the view of the cluster that lies in `run_dir`; inside the runtime. `scale` multiplies the protocol's waits.
    ///
    /// # Errors
    /// The run directory can't be written.
    pub fn start(
        clients: &Clients,
        node_name: &str,
        run_dir: &Path,
        exports: Arc<dyn Exports>,
        scale: f64,
    ) -> Result<SimulatedNode, ClaimingError> {
        let times = Times::new(scale, Duration::from_mins(5));
        let freshness = Arc::new(Freshness::new(times, None));
        let journal = Journal::open(run_dir)?;
        let view = ClusterView::open(clients.clone(), node_name, run_dir, Arc::clone(&freshness));
        view.set_own_blocks_known();
        let ledger = Arc::new(Ledger::new());
        let (checkpoint, writer) = BlockCheckpoint::new(Arc::clone(&ledger), journal);
        let blocks = Blocks::new(BlockTasks {
            boot_id: String::new(),
            clients: clients.clone(),
            view: view.clone(),
            ledger: Arc::clone(&ledger),
            checkpoint,
            exports,
            recorder: Recorder::open(clients.clone(), node_name, run_dir, Arc::clone(&freshness), |_| {})?,
            freshness: Arc::clone(&freshness),
            events: Events::start(clients.requests.clone(), &view),
            times,
            watchdog: Watchdog::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(CancellationToken::new()));
        tasks.spawn(async move { blocks.run().await });
        freshness.answered(boot_time());
        let claims = Claims::new(clients, view.clone(), Arc::clone(&ledger), Arc::clone(&freshness));
        Ok(SimulatedNode { claims, ledger, view, freshness, _tasks: tasks })
    }

    /// From now on it is as if its calls to the API server failed, until one is answered.
    pub fn lose_contact(&self) {
        self.freshness.failed();
    }

    /// Whether a block of its serves though nobody has looked for records of other nodes' pods in it.
    pub fn serves_unseen(&self, block: &str) -> bool {
        let held = self.ledger.block(block);
        held.is_some_and(|held| held.state.assignable() && held.proof != Proof::RecordsUnseen)
    }

    /// Gives a block back and waits until it is gone. False: it is not free, or did not go within `deadline`.
    pub async fn release(&self, block: &str, deadline: Duration) -> bool {
        let mut changed = self.ledger.changed();
        if !self.ledger.begin_release(block) {
            return false;
        }
        let gone = async {
            while self.ledger.block_state(block).is_some() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(deadline, gone).await.is_ok()
    }
}
