//! Claims a free block for this node with one conditional write to the API server.
//!
//! The agent records a claim in the node's state before it sends the claim. The record stays until the outcome of the claim is known. The
//! caller decides when to claim.

mod exports;
mod find;
mod free_blocks;
mod node_network;
mod supply;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bobbin_api_client::{Clients, ReadError};
use bobbin_crds::AddressPool;
use bobbin_datapath::{Network, boot_time};
use bobbin_ipam::BootTime;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::blocks::api_calls::BlockApi;
use crate::blocks::read::BlockInfo;
use crate::cluster::freshness::{FreshnessTracker, Proof, ReadStart};
use crate::cluster::pool_selection::pool_info;
use crate::cluster::{ClusterCache, NodeInfo};
use crate::metrics::ClaimMetrics;
use crate::state::{BlockState, ClaimedBlock, NewBlock, NodeState};
pub use exports::{ExportError, Exports};
pub(crate) use find::{ClaimOptions, OnUnknown};
pub(crate) use node_network::{NodeNetwork, REMEDY as NODE_NETWORK_REMEDY, reserved_of};
pub(crate) use supply::{Supply, has_uncreated_blocks};

/// How long a claim waits for its block to enter service. After this time, the claim returns an error that says why the block is not in
/// service.
const IN_SERVICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no block was claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The pool has no free block.
    #[error("pool {0:?} has no free block")]
    PoolFull(String),
    /// Every free block of the pool is still cooling down. The node already has a block in which every free address is cooling down.
    /// Another such block would bring no address that has cooled down, so the node claims none.
    #[error(
        "every free block of pool {0:?} is still cooling down. The node claims no such block yet, because the node already has a block in which every free address is cooling down"
    )]
    OnlyCooling(String),
    /// The pool does not let this node claim a block now.
    #[error("node {node} can't claim a block of pool {pool:?}: {why}")]
    NotReady {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// Why the pool does not let this node claim a block.
        why: String,
    },
    /// The API server refused the claim of a block.
    #[error("the API server refused to let node {node} claim block {block} of pool {pool:?}: {why}")]
    Refused {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// The block.
        block: String,
        /// The API server's message.
        why: String,
    },
    /// The node claimed the block, but can't use it.
    #[error("node {node} claimed a block of pool {pool:?}, but can't use it: {why}")]
    UnusableBlock {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// Why the block can't be used.
        why: String,
    },
    /// Each free block of the pool contains addresses that the node itself uses.
    #[error(
        "node {node} can't claim a block of pool {pool:?}, because each free block contains addresses that the node itself uses: {what}"
    )]
    NodeNetwork {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// The networks of the node that lie in the pool.
        what: String,
    },
    /// The kernel did not list the networks that the node itself uses.
    #[error(
        "node {node} can't claim a block of pool {pool:?}, because the agent can't list the node's addresses and routes: {why}"
    )]
    NodeNetworkUnread {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// The kernel's error.
        why: String,
    },
    /// The agent has not read this node's blocks since its start. The agent must read them once before it claims a block.
    #[error(
        "the node can't claim a block of pool {0:?} yet, because the agent has not read the node's own blocks since the agent started"
    )]
    OwnBlocksUnread(String),
    /// The node already has its maximum number of blocks of the pool.
    #[error(
        "node {node} can't claim another block of pool {pool:?}, because it already has its maximum of {max} blocks"
    )]
    Limit {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// The largest number of blocks that the node may have.
        max: u32,
    },
    /// An API call of the claim failed. If a read later shows that the claim succeeded, the block enters service.
    #[error("a call to the API server failed while the node tried to claim a block of pool {pool:?}: {why}")]
    Unreachable {
        /// The pool.
        pool: String,
        /// The error of the call.
        why: String,
    },
    /// Other nodes were faster: they claimed each block that this claim tried.
    #[error("other nodes claimed the free blocks of pool {0:?} first; the agent retries")]
    Contended(String),
    /// The claimed block is not in service yet: the agent can't write the block's route, or the quiet time after an outage has not ended.
    #[error("block {block} of pool {pool:?} is claimed but not in service yet: {why}")]
    NotInService {
        /// The block.
        block: String,
        /// The pool.
        pool: String,
        /// Why the block is not in service.
        why: &'static str,
    },
}

/// Claims blocks. Cheap to clone.
#[derive(Clone)]
pub struct Claims(Arc<ClaimState>);

struct ClaimState {
    api: BlockApi,
    cluster: ClusterCache,
    node_state: Arc<NodeState>,
    freshness: Arc<FreshnessTracker>,
    /// The largest number of addresses that the node's blocks may have together in a pool without `maxBlocksPerNode`.
    max_addresses: u32,
    attempts: AtomicU64,
    metrics: ClaimMetrics,
    node_network: NodeNetwork,
}

impl Claims {
    /// Creates a `Claims` value, which claims blocks for the node of `cluster` and adds them to `node_state`. In a pool without
    /// `maxBlocksPerNode`, the node's blocks may together have `max_addresses` addresses. If `network` is given, the node claims no block
    /// with addresses that the node itself uses.
    ///
    /// [`BlockReconciler`](crate::blocks::BlockReconciler) brings the claimed blocks into service.
    pub fn new(
        clients: &Clients,
        cluster: ClusterCache,
        node_state: Arc<NodeState>,
        freshness: Arc<FreshnessTracker>,
        max_addresses: u32,
        network: Option<Network>,
    ) -> Claims {
        Claims(Arc::new(ClaimState {
            api: BlockApi::new(clients),
            cluster,
            node_state,
            freshness,
            max_addresses,
            attempts: AtomicU64::new(0),
            metrics: ClaimMetrics::default(),
            node_network: NodeNetwork::new(network),
        }))
    }

    /// The networks that the node itself uses.
    pub(crate) fn node_network(&self) -> &NodeNetwork {
        &self.0.node_network
    }

    /// Returns the current time and the end of the quiet time after an outage. Without a quiet time, both are the current time. A newly
    /// added block stays out of service until the quiet time ends.
    pub(crate) fn quiet_time(&self) -> (BootTime, BootTime) {
        let now = boot_time();
        (now, self.0.freshness.quiet_until(now).unwrap_or(now))
    }

    /// The metrics of claims.
    pub(crate) fn metrics(&self) -> &ClaimMetrics {
        &self.0.metrics
    }

    /// Claims a block of a pool and waits until the block is in service. If `cooled_only` is true, the claim skips blocks that are still
    /// cooling down. If no other node competes, the claim usually makes at most three API calls, however large the pool is. A claim that
    /// has to skip listed blocks may list more pages of free blocks.
    ///
    /// # Errors
    /// See [`ClaimError`]. After a write with an unknown outcome, the claim reads the block until a read shows the owner. So the node's
    /// state gets every block that the node has claimed, except a block whose range can't be parsed.
    pub async fn claim(&self, pool: &str, cooled_only: bool) -> Result<ClaimedBlock, ClaimError> {
        self.claim_with(pool, ClaimOptions { cooled_only, ..ClaimOptions::default() }, &|_| {}).await
    }

    /// Claims a block like [`Self::claim`]. Calls `on_unknown` once if the outcome of a write stays unknown after the first read of the
    /// block.
    pub(crate) async fn claim_with(
        &self,
        pool: &str,
        options: ClaimOptions,
        on_unknown: OnUnknown<'_>,
    ) -> Result<ClaimedBlock, ClaimError> {
        let (known, node) = self.admission(pool)?;
        self.within_limit(&known)?;
        let begun = std::time::Instant::now();
        let claimed = self.claim_admitted(&known, &node, options, on_unknown).await;
        self.0.metrics.ended(begun.elapsed());
        claimed
    }

    /// Claims a block after [`Self::claim_with`] has checked that the pool admits the node and that the node may have another block. Waits
    /// until the block is in service.
    async fn claim_admitted(
        &self,
        known: &AddressPool,
        node: &NodeInfo,
        options: ClaimOptions,
        on_unknown: OnUnknown<'_>,
    ) -> Result<ClaimedBlock, ClaimError> {
        let pool = known.name_any();
        let occupied = self.0.node_network.read().await.map_err(|error| ClaimError::NodeNetworkUnread {
            pool: pool.clone(),
            node: node.name.clone(),
            why: error.to_string(),
        })?;
        let held = self.find(known, node, options, &occupied, on_unknown).await?;
        tracing::info!(block = held.name, pool, "claimed a block");
        self.wait_until_in_service(&held).await?;
        Ok(held)
    }

    /// Waits until a claimed block is in service.
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
            return match self.0.node_state.block_state(&held.name) {
                Some(BlockState::Releasing { .. }) | None => Err(ClaimError::UnusableBlock {
                    pool: held.pool.clone(),
                    node: self.0.cluster.node_name().to_owned(),
                    why: format!("the node is releasing block {}; see the agent's log", held.name),
                }),
                _ => Ok(()),
            };
        }
        let why = if quiet.is_some() {
            "the API server did not answer for a while, so pods of other nodes may use addresses of the block without IPAssignments. The agent waits to give the other nodes time to create these IPAssignments"
        } else {
            "the agent can't write the block's route; see the agent's log"
        };
        Err(ClaimError::NotInService { block: held.name.clone(), pool: held.pool.clone(), why })
    }

    /// Adds a block that this node owns according to the API server. `had_finalizer` says whether the block may have had Bobbin's finalizer
    /// before the claim. `now_claimed` says whether this agent claimed the block just now.
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
        let proof = Proof::of_claim(start.proof(), had_finalizer, not_before > now);
        let arrived = self.0.node_state.add_block(NewBlock {
            held: held.clone(),
            cooling_since: block.cooling_since(had_finalizer && now_claimed, cooldown, Timestamp::now(), now),
            reserved: pool.and_then(|pool| self.0.node_network.reserved(pool).ok()).unwrap_or_default(),
            proof,
            now,
            not_before,
            was_used: !now_claimed,
        });
        if !arrived {
            tracing::debug!(block = held.name, "the node's state already has this block");
        }
        Ok(held)
    }

    /// Returns why the node can't claim a block of the pool now. Returns `None` if nothing prevents a claim.
    pub fn refused(&self, pool: &str) -> Option<ClaimError> {
        self.admission(pool).and_then(|(known, _)| self.within_limit(&known)).err()
    }

    fn admission(&self, pool: &str) -> Result<(Arc<AddressPool>, NodeInfo), ClaimError> {
        let name = self.0.cluster.node_name().to_owned();
        let refuse =
            |why: &str| ClaimError::NotReady { pool: pool.to_owned(), node: name.clone(), why: why.to_owned() };
        if !self.0.cluster.own_blocks_known() {
            return Err(ClaimError::OwnBlocksUnread(pool.to_owned()));
        }
        if self.0.cluster.node_is_gone() {
            return Err(refuse("the Node was deleted or is out of service"));
        }
        let node = self.0.cluster.node().ok_or_else(|| refuse("the agent has not seen the Node object yet"))?;
        let known = self.0.cluster.pool(pool).ok_or_else(|| refuse("the pool does not exist"))?;
        let info = pool_info(&known, None, Some(&node));
        if info.deleting || info.draining {
            return Err(refuse(if info.deleting { "the pool is being deleted" } else { "the pool is draining" }));
        }
        if !info.admits_node {
            return Err(refuse("the pool's nodeSelector does not admit the node"));
        }
        if !info.ready {
            return Err(refuse(info.not_ready_why.unwrap_or("the pool is not ready yet")));
        }
        Ok((known, node))
    }

    fn within_limit(&self, pool: &AddressPool) -> Result<(), ClaimError> {
        let name = pool.name_any();
        let max = self.max_blocks(pool);
        if self.0.node_state.block_count(&name) >= max as usize {
            return Err(ClaimError::Limit { pool: name, node: self.0.cluster.node_name().to_owned(), max });
        }
        Ok(())
    }

    /// The largest number of blocks of the pool that this node may have.
    pub(crate) fn max_blocks(&self, pool: &AddressPool) -> u32 {
        pool.spec.max_blocks(self.0.max_addresses)
    }
}

fn unreachable(pool: &str, error: &ReadError) -> ClaimError {
    ClaimError::Unreachable { pool: pool.to_owned(), why: error.to_string() }
}
