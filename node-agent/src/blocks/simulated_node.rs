//! A node that claims and releases blocks and does nothing else: no pods, no kernel. For tests and benchmarks of the protocol with
//! thousands of nodes against a real API server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::Clients;
use bobbin_datapath::boot_time;
use bobbin_observability::Progress;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::timing::Times;
use crate::assignments::AssignmentWriter;
use crate::blocks::claim::{Claims, Exports};
use crate::blocks::{BlockContext, BlockReconciler};
use crate::cluster::ClusterCache;
use crate::cluster::freshness::{FreshnessTracker, Proof};
use crate::events::Events;
use crate::state::NodeState;
use crate::state::checkpoint::blocks::BlockCheckpoint;
use crate::state::checkpoint::{Checkpoint, CheckpointError};

/// Why a claiming node did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedNodeError {
    /// Its run directory can't be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its queue of deletions can't be made.
    #[error("the queue of deletions can't be made: {0}")]
    Deletions(#[from] std::io::Error),
}

/// One such node. Dropped, it ends.
pub struct SimulatedNode {
    /// Claims for it.
    pub claims: Claims,
    /// Its blocks.
    pub node_state: Arc<NodeState>,
    /// What it knows of the cluster: what lies in its run directory, for it watches nothing.
    pub cluster: ClusterCache,
    freshness: Arc<FreshnessTracker>,
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
    ) -> Result<SimulatedNode, SimulatedNodeError> {
        let times = Times::new(scale, Duration::from_mins(5));
        let freshness = Arc::new(FreshnessTracker::new(times, None));
        let checkpoint = Checkpoint::open(run_dir)?;
        let cluster = ClusterCache::open(clients.clone(), node_name, run_dir, Arc::clone(&freshness));
        cluster.set_own_blocks_known();
        let node_state = Arc::new(NodeState::new());
        let (checkpoint, writer) = BlockCheckpoint::new(Arc::clone(&node_state), checkpoint);
        let blocks = BlockReconciler::new(BlockContext {
            boot_id: String::new(),
            clients: clients.clone(),
            cluster: cluster.clone(),
            node_state: Arc::clone(&node_state),
            checkpoint,
            exports,
            assignment_writer: AssignmentWriter::open(
                clients.clone(),
                node_name,
                run_dir,
                Arc::clone(&freshness),
                |_| {},
            )?,
            freshness: Arc::clone(&freshness),
            events: Events::start(clients.requests.clone(), &cluster),
            times,
            progress: Progress::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(CancellationToken::new()));
        tasks.spawn(async move { blocks.run().await });
        freshness.answered(boot_time());
        let claims = Claims::new(clients, cluster.clone(), Arc::clone(&node_state), Arc::clone(&freshness));
        Ok(SimulatedNode { claims, node_state, cluster, freshness, _tasks: tasks })
    }

    /// From now on it is as if its calls to the API server failed, until one is answered.
    pub fn lose_contact(&self) {
        self.freshness.call_failed();
    }

    /// Whether a block of its serves though nobody has looked for records of other nodes' pods in it.
    pub fn serves_unseen(&self, block: &str) -> bool {
        let held = self.node_state.block(block);
        held.is_some_and(|held| held.state.assignable() && held.proof != Proof::AssignmentsUnseen)
    }

    /// Gives a block back and waits until it is gone. False: it is not free, or did not go within `deadline`.
    pub async fn release(&self, block: &str, deadline: Duration) -> bool {
        let mut changed = self.node_state.changed();
        if !self.node_state.begin_release(block) {
            return false;
        }
        let gone = async {
            while self.node_state.block_state(block).is_some() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(deadline, gone).await.is_ok()
    }
}
