//! Claims a free block for this node: one conditional write by which the API server makes the block ours, or says no. It
//! decides nothing about when. The ledger knows of a claim before it is sent and until its outcome is known.

mod exports;
mod find;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bobbin_api_client::{Clients, ReadError};
use bobbin_crds::AddressPool;
use bobbin_datapath::boot_time;
use bobbin_ipam::{BootTime, Reserved};
use jiff::Timestamp;
use kube::ResourceExt;
use prometheus_client::metrics::counter::Counter;

use crate::blocks::api_calls::BlockApi;
use crate::blocks::read::BlockInfo;
use crate::cluster::freshness::{FreshnessTracker, Proof, ReadStart};
use crate::cluster::pool_selection::pool_info;
use crate::cluster::{ClusterCache, NodeInfo};
use crate::state::{BlockState, ClaimedBlock, NewBlock, NodeState};
pub use exports::{ExportError, Exports};
pub(crate) use find::OnUnknown;

/// How long a confirmed block may take into service before an ADD is told why it waits.
const IN_SERVICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no block was claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The pool has no free block.
    #[error("pool {0:?} has no free block")]
    PoolFull(String),
    /// The pool has free blocks, but all of them cool, and the node has one that cools already.
    #[error("every free block of pool {0:?} is cooling, and so is one that the node has")]
    OnlyCooling(String),
    /// The pool does not let this node claim now.
    #[error("pool {pool:?} lets node {node} claim no block: {why}")]
    NotReady {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// Why.
        why: String,
    },
    /// `maxBlocksPerNode` is reached.
    #[error("node {node} has {most} blocks of pool {pool:?}, as many as its maxBlocksPerNode allows")]
    Limit {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// The limit.
        most: i64,
    },
    /// The API server did not answer; nothing is held by it.
    #[error("no block of pool {pool:?} could be claimed: {why}")]
    Unreachable {
        /// The pool.
        pool: String,
        /// What failed.
        why: String,
    },
    /// Other nodes were quicker, each time.
    #[error("other nodes were quicker to claim blocks of pool {0:?}")]
    Contended(String),
    /// The block is ours, but not in service yet: its route can't be written, or the quiet time after an outage runs.
    #[error("block {block} of pool {pool:?} is claimed but not in service yet: {why}")]
    NotInService {
        /// The block.
        block: String,
        /// The pool.
        pool: String,
        /// What it waits for.
        why: &'static str,
    },
}

/// Claims. Cheap to clone.
#[derive(Clone)]
pub struct Claims(Arc<ClaimState>);

struct ClaimState {
    api: BlockApi,
    cluster: ClusterCache,
    node_state: Arc<NodeState>,
    freshness: Arc<FreshnessTracker>,
    attempts: AtomicU64,
    conflicts: Counter,
}

impl Claims {
    /// Claims for the node of `view` into `ledger`. The tasks of [`crate::Blocks`] bring what was claimed into service.
    pub fn new(
        clients: &Clients,
        cluster: ClusterCache,
        node_state: Arc<NodeState>,
        freshness: Arc<FreshnessTracker>,
    ) -> Claims {
        Claims(Arc::new(ClaimState {
            api: BlockApi::new(clients),
            cluster,
            node_state,
            freshness,
            attempts: AtomicU64::new(0),
            conflicts: Counter::default(),
        }))
    }

    /// Returns the present time, and when the quiet time after an outage ends (the present time if there is none). A block that was not in
    /// service stays out of service until then.
    pub(crate) fn quiet_time(&self) -> (BootTime, BootTime) {
        let now = boot_time();
        (now, self.0.freshness.quiet_until(now).unwrap_or(now))
    }

    /// The count of races lost to other nodes, to be shown.
    pub fn conflicts(&self) -> Counter {
        self.0.conflicts.clone()
    }

    /// Claims a block of a pool and waits until it serves. One call as a rule, three at most while no race is lost, however large the
    /// pool. `cooled_only`: a block whose addresses still cool is of no use.
    ///
    /// # Errors
    /// See [`ClaimError`]. After an unknown outcome the block is read back until it is known whose it is, so no error leaves a block
    /// behind that is ours without being in the ledger, except one whose range can't be read.
    pub async fn claim(&self, pool: &str, cooled_only: bool) -> Result<ClaimedBlock, ClaimError> {
        self.claim_with(pool, cooled_only, &|_| {}).await
    }

    /// [`Self::claim`]; `on_unknown` is told once if an outcome stays unknown for longer than one read.
    pub(crate) async fn claim_with(
        &self,
        pool: &str,
        cooled_only: bool,
        on_unknown: OnUnknown<'_>,
    ) -> Result<ClaimedBlock, ClaimError> {
        let (known, node) = self.admission(pool)?;
        self.within_limit(&known)?;
        let held = self.find(&known, &node, cooled_only, on_unknown).await?;
        tracing::info!(block = held.name, pool, "claimed a block");
        self.wait_until_in_service(&held).await?;
        Ok(held)
    }

    /// Waits until a claimed block serves.
    async fn wait_until_in_service(&self, held: &ClaimedBlock) -> Result<(), ClaimError> {
        let mut changed = self.0.node_state.changed();
        let coming = async {
            while matches!(self.0.node_state.block_state(&held.name), Some(BlockState::Exporting { .. })) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let quiet = self.0.freshness.quiet_until(boot_time());
        let waited = tokio::time::timeout(IN_SERVICE_TIMEOUT, coming).await;
        if waited.is_ok() {
            return Ok(());
        }
        let why = if quiet.is_some() {
            "the API server was away, so the nodes that have pods in it come first"
        } else {
            "its route can't be written, see the agent's log"
        };
        Err(ClaimError::NotInService { block: held.name.clone(), pool: held.pool.clone(), why })
    }

    /// Takes in a block that the API server says is ours. `had_finalizer`: it had our finalizer before the claim, or nobody knows.
    /// `now_claimed`: the claim was made just now.
    pub(crate) fn add_owned(
        &self,
        block: &BlockInfo,
        had_finalizer: bool,
        pool: Option<&AddressPool>,
        start: ReadStart,
        now_claimed: bool,
    ) -> Result<ClaimedBlock, String> {
        let held = block.held()?;
        let (now, not_before) = self.quiet_time();
        let cooldown = crate::cluster::cooldown_of(pool);
        let proof = if not_before > now || had_finalizer { Proof::AssignmentsUnseen } else { start.proof() };
        let arrived = self.0.node_state.add_block(NewBlock {
            held: held.clone(),
            cooling_since: block.cooling_since(had_finalizer && now_claimed, cooldown, Timestamp::now(), now),
            reserved: pool.and_then(|pool| Reserved::parse(&pool.spec.reserved).ok()).unwrap_or_default(),
            proof,
            now,
            not_before,
            was_used: !now_claimed,
        });
        if !arrived {
            tracing::debug!(block = held.name, "a block that is ours is in this node's state already");
        }
        Ok(held)
    }

    /// Why no claim can even be tried in a pool; `None`: it can.
    pub fn refused(&self, pool: &str) -> Option<ClaimError> {
        self.admission(pool).and_then(|(known, _)| self.within_limit(&known)).err()
    }

    fn admission(&self, pool: &str) -> Result<(Arc<AddressPool>, NodeInfo), ClaimError> {
        let name = self.0.cluster.node_name().to_owned();
        let refuse =
            |why: &str| ClaimError::NotReady { pool: pool.to_owned(), node: name.clone(), why: why.to_owned() };
        if !self.0.cluster.own_blocks_known() {
            let why = "the node's own blocks have not been read since the agent started".to_owned();
            return Err(ClaimError::Unreachable { pool: pool.to_owned(), why });
        }
        if self.0.cluster.node_is_gone() {
            return Err(refuse("its Node was deleted or is out of service"));
        }
        let node = self.0.cluster.node().ok_or_else(|| refuse("its Node object has not been seen yet"))?;
        let known = self.0.cluster.pool(pool).ok_or_else(|| refuse("there is no such pool"))?;
        let info = pool_info(&known, None, Some(&node));
        if info.deleting || info.draining {
            return Err(refuse(if info.deleting { "it is being deleted" } else { "it is draining" }));
        }
        if !info.admits_node {
            return Err(refuse("its nodeSelector does not admit the node"));
        }
        if !info.ready {
            return Err(refuse(info.not_ready_why.unwrap_or("it is not ready yet")));
        }
        Ok((known, node))
    }

    fn within_limit(&self, pool: &AddressPool) -> Result<(), ClaimError> {
        let name = pool.name_any();
        let have = self.0.node_state.block_count(&name);
        match pool.spec.max_blocks_per_node {
            Some(most) if i64::try_from(have).is_ok_and(|have| have >= most) => {
                Err(ClaimError::Limit { pool: name, node: self.0.cluster.node_name().to_owned(), most })
            }
            _ => Ok(()),
        }
    }
}

fn unreachable(pool: &str, error: &ReadError) -> ClaimError {
    ClaimError::Unreachable { pool: pool.to_owned(), why: error.to_string() }
}
