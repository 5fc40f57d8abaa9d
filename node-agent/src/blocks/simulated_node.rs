//! A simulated node that only claims and releases blocks. It has no pods and does not use the kernel's network. Tests and benchmarks run
//! thousands of simulated nodes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::Clients;
use bobbin_crds::pool::DEFAULT_MAX_ADDRESSES_PER_NODE;
use bobbin_datapath::boot_time;
use bobbin_observability::Watchdog;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::timing::Times;
use crate::assignments::AssignmentWriter;
use crate::blocks::claim::{Claims, Exports};
use crate::blocks::demand::DemandController;
use crate::blocks::{BlockContext, BlockReconciler};
use crate::cluster::ClusterCache;
use crate::cluster::freshness::{FreshnessTracker, Proof};
use crate::events::Events;
use crate::state::NodeState;
use crate::state::checkpoint::blocks::BlockCheckpoint;
use crate::state::checkpoint::{Checkpoint, CheckpointError};

/// How long a simulated node keeps an empty block. No test lasts this long.
const BLOCK_IDLE: Duration = Duration::from_hours(1);

/// Why a simulated node did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedNodeError {
    /// The simulated node's run directory can't be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The directory of pending deletions can't be opened.
    #[error("the directory of pending deletions can't be opened: {0}")]
    Deletions(#[from] std::io::Error),
}

/// One simulated node. Dropping the value ends the node.
pub struct SimulatedNode {
    /// Claims blocks for the node.
    pub claims: Claims,
    /// The simulated node's blocks.
    pub node_state: Arc<NodeState>,
    /// The simulated node's cluster cache. It contains only the snapshot from the run directory, because the node watches nothing.
    pub cluster: ClusterCache,
    freshness: Arc<FreshnessTracker>,
    checkpoint: BlockCheckpoint,
    events: Events,
    _tasks: JoinSet<()>,
}

impl SimulatedNode {
    /// Starts a node with the cluster snapshot in `run_dir`. The caller must be inside a tokio runtime. `scale` multiplies the waiting
    /// times of the protocol between agents, operator and API server.
    ///
    /// # Errors
    /// Fails if the run directory can't be written, or if the directory of pending deletions can't be opened.
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
        let events = Events::start(clients.requests.clone(), &cluster);
        let blocks = BlockReconciler::new(BlockContext {
            boot_id: String::new(),
            clients: clients.clone(),
            cluster: cluster.clone(),
            node_state: Arc::clone(&node_state),
            checkpoint: checkpoint.clone(),
            exports,
            assignment_writer: AssignmentWriter::open(
                clients.clone(),
                node_name,
                run_dir,
                Arc::clone(&freshness),
                |_| {},
            )?,
            freshness: Arc::clone(&freshness),
            events: events.clone(),
            times,
            watchdog: Watchdog::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(CancellationToken::new()));
        tasks.spawn(async move { blocks.run().await });
        freshness.answered(boot_time());
        let claims = Claims::new(
            clients,
            cluster.clone(),
            Arc::clone(&node_state),
            Arc::clone(&freshness),
            DEFAULT_MAX_ADDRESSES_PER_NODE,
            None,
        );
        Ok(SimulatedNode { claims, node_state, cluster, freshness, checkpoint, events, _tasks: tasks })
    }

    /// Waits for a block of the pool like an ADD, and retries claims like the agent. Returns whether a block came into service within
    /// `deadline`.
    pub async fn wait_for_block(&self, pool: &str, deadline: Duration) -> bool {
        let controller = DemandController::new(
            self.cluster.clone(),
            Arc::clone(&self.node_state),
            self.claims.clone(),
            self.checkpoint.clone(),
            self.events.clone(),
            BLOCK_IDLE,
            false,
        );
        let watchdog = Watchdog::default();
        let _waiting = controller.demand(pool);
        let mut changed = self.node_state.changed();
        let has_block =
            || self.node_state.blocks().iter().any(|block| block.held.pool == pool && block.state.assignable());
        let served = async { while !has_block() && changed.changed().await.is_ok() {} };
        tokio::select! {
            () = controller.run(watchdog.register("demand", deadline)) => false,
            served = tokio::time::timeout(deadline, served) => served.is_ok(),
        }
    }

    /// Makes the node behave as if its last call to the API server had failed. The next answered call ends the simulated failure.
    pub fn lose_contact(&self) {
        self.freshness.call_failed(boot_time());
    }

    /// Returns true if a block of this node is in service and the agent does not have to list other nodes' assignments in the block.
    pub fn serves_without_listing(&self, block: &str) -> bool {
        let held = self.node_state.block(block);
        held.is_some_and(|held| held.state.assignable() && held.proof != Proof::AssignmentsUnseen)
    }

    /// Releases a block and waits until the node no longer has it. Returns false if the block is not empty, or if the node still has it
    /// after `deadline`.
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
