//! Claims blocks for waiting ADDs and expected pods, and one extra block ahead of demand. Retires and releases blocks that the node
//! does not need.
//!
//! `ipam::demand` decides how many blocks the node needs. A hanging claim in one pool does not delay claims in other pools.

mod claim_schedule;
mod pool_state;
mod retire;
pub(crate) mod waiting_pods;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bobbin_crds::AddressPool;
use bobbin_ipam::demand::{BlockUse, PoolUse, decide};
use bobbin_messages::condition;
use bobbin_messages::event::agent as event;
use bobbin_observability::Heartbeat;
use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::blocks::claim::{ClaimError, ClaimOptions, Claims, NODE_NETWORK_REMEDY, Supply};
use crate::cluster::ClusterCache;
use crate::cluster::pool_selection::{expected_pool, pool_info, with_accepted_subnets};
use crate::events::Events;
use crate::state::NodeState;
use crate::state::checkpoint::blocks::BlockCheckpoint;
use pool_state::PoolState;

/// How often the controller reconciles all pools if nothing changed. A pass makes no call to the API server.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Controls how many blocks of each pool the node has. Cheap to clone.
#[derive(Clone)]
pub struct DemandController(Arc<ControllerState>);

struct ControllerState {
    cluster: ClusterCache,
    node_state: Arc<NodeState>,
    claims: Claims,
    checkpoint: BlockCheckpoint,
    events: Events,
    block_idle: Duration,
    /// Whether the agent is being uninstalled. If so, every block retires.
    uninstalling: bool,
    pools: Mutex<HashMap<String, PoolState>>,
    wake: Notify,
    refused_pools: Gauge,
}

/// An ADD that waits for an address. The controller claims blocks for the ADD until this value is dropped.
#[must_use = "once this value is dropped, the controller claims no more blocks for the ADD"]
pub struct WaitingAdd {
    controller: DemandController,
    pool: String,
    attempts: watch::Receiver<u64>,
}

impl WaitingAdd {
    /// Waits until a claim in the pool ends, the outcome of a claim stays unknown, or no claim can be tried. Returns at once if one of
    /// these happened since the last call. [`DemandController::last_claim_error`] then says why the node got no block.
    pub async fn tried(&mut self) {
        if self.attempts.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for WaitingAdd {
    fn drop(&mut self) {
        if let Some(state) = self.controller.pools().get_mut(&self.pool) {
            state.waiting = state.waiting.saturating_sub(1);
        }
        self.controller.0.wake.notify_one();
    }
}

impl DemandController {
    /// Creates the controller. The node keeps an empty block for `block_idle`. If `uninstalling` is true, every block retires.
    pub fn new(
        cluster: ClusterCache,
        node_state: Arc<NodeState>,
        claims: Claims,
        checkpoint: BlockCheckpoint,
        events: Events,
        block_idle: Duration,
        uninstalling: bool,
    ) -> DemandController {
        let wake = Notify::new();
        let pools = Mutex::default();
        DemandController(Arc::new(ControllerState {
            cluster,
            node_state,
            claims,
            checkpoint,
            events,
            block_idle,
            uninstalling,
            pools,
            wake,
            refused_pools: Gauge::default(),
        }))
    }

    /// Registers an ADD that waits for an address of a pool. The caller watches the node's state for the address, and drops the returned
    /// value when the ADD stops waiting.
    pub fn demand(&self, pool: &str) -> WaitingAdd {
        let attempts = {
            let mut pools = self.pools();
            let state = pools.entry(pool.to_owned()).or_default();
            state.waiting += 1;
            state.unnotified = true;
            state.attempts.subscribe()
        };
        self.0.wake.notify_one();
        WaitingAdd { controller: self.clone(), pool: pool.to_owned(), attempts }
    }

    /// The error of the last claim in a pool, if that claim failed.
    pub fn last_claim_error(&self, pool: &str) -> Option<Arc<ClaimError>> {
        self.pools().get(pool).and_then(|state| state.last_error.clone())
    }

    /// The number of ADDs that wait for an address now.
    pub fn waiting_adds(&self) -> usize {
        self.pools().values().map(|state| state.waiting as usize).sum()
    }

    /// Whether a waiting ADD may soon get an address: a claim may soon end, or a block soon enters service. A block whose release was
    /// cancelled also enters service soon. Returns false while the outcome of a claim is unknown.
    pub fn may_serve_waiting(&self, pool: &str) -> bool {
        let blocks_coming = self.0.node_state.blocks_coming(pool);
        self.pools().get(pool).is_some_and(|state| state.may_serve(blocks_coming))
    }

    /// Reconciles all pools on every change, until the agent stops.
    pub async fn run(&self, beat: Heartbeat) {
        let mut node_state = self.0.node_state.changed();
        let mut cluster = self.0.cluster.changed();
        let mut network_read: Option<Instant> = None;
        loop {
            if network_read.is_none_or(|at| at.elapsed() >= CHECK_INTERVAL) {
                network_read = Some(Instant::now());
                self.compare_with_node_network().await;
            }
            let next = self.reconcile();
            beat.beat();
            tokio::select! {
                () = self.0.wake.notified() => {}
                changed = node_state.changed() => if changed.is_err() { return },
                changed = cluster.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Reports the pools whose accepted subnets contain addresses of the node's own networks. Refused subnets have no blocks, so they don't
    /// matter here.
    async fn compare_with_node_network(&self) {
        let network = self.0.claims.node_network();
        if let Err(error) = network.refresh().await {
            tracing::warn!(%error, "the agent can't list the node's addresses and routes, so it claims no block; the agent retries the list");
            return;
        }
        let node = self.0.cluster.node();
        for pool in self.0.cluster.pools() {
            let admits_node = pool_info(&pool, None, node.as_ref()).admits_node;
            let Some(what) = network.note_change(&with_accepted_subnets(&pool), admits_node) else { continue };
            let (name, node) = (pool.name_any(), self.0.cluster.node_name());
            let sentence = format!(
                "pool {name:?} overlaps networks of node {node}: {what}. The node skips the blocks with addresses of these networks, because the blocks' routes would cut the node off from these networks. To get other blocks, {NODE_NETWORK_REMEDY}. Alternatively, exclude the node with the pool's nodeSelector"
            );
            tracing::warn!("{sentence}");
            self.0.events.on_pool(&pool, &event::NODE_NETWORK, &sentence);
        }
        let refused = network.pools_with_refused_blocks(|pool| self.0.cluster.pool(pool).is_some());
        self.0.refused_pools.set(i64::try_from(refused).unwrap_or(i64::MAX));
    }

    /// The gauge of refused pools. A refused pool has blocks that this node does not claim, because these blocks contain addresses that the
    /// node itself uses.
    pub fn refused_pools(&self) -> Gauge {
        self.0.refused_pools.clone()
    }

    /// Reconciles all pools once. Returns how long to wait for the next pass if nothing changes meanwhile.
    fn reconcile(&self) -> Duration {
        self.note_expected();
        self.retire();
        let known = self.0.cluster.pools();
        let held = self.0.node_state.blocks();
        let names: BTreeSet<String> =
            known.iter().map(|pool| pool.name_any()).chain(held.into_iter().map(|block| block.held.pool)).collect();
        let mut next = CHECK_INTERVAL;
        for name in names {
            // The agent can't compute the demand for a pool that the cache lacks. `retire` handles the blocks of a deleted pool.
            if let Some(pool) = self.0.cluster.pool(&name) {
                next = next.min(self.reconcile_pool(&name, &pool));
            }
        }
        next.max(Duration::from_millis(20))
    }

    /// Counts the pods that were scheduled to this node and have no address yet.
    fn note_expected(&self) {
        let now = Instant::now();
        for pod in self.0.cluster.take_newly_scheduled() {
            if let Some(pool) = expected_pool(&self.0.cluster, &pod) {
                self.pools().entry(pool).or_default().expect(pod.uid.clone(), now);
            }
        }
        let mut pools = self.pools();
        if pools.values().any(PoolState::expects) {
            let served: Vec<String> =
                self.0.node_state.attachments().into_iter().map(|attachment| attachment.pod.uid).collect();
            pools.values_mut().for_each(|state| state.forget_expected(&served, now));
        }
    }

    fn reconcile_pool(&self, name: &str, pool: &AddressPool) -> Duration {
        match self.0.claims.node_network().reserved(pool) {
            Ok(reserved) => self.0.node_state.set_reserved(name, &reserved),
            // The schema refuses a pool whose reserved addresses can't be parsed, so this error is unlikely. The addresses from the last
            // successful parse stay reserved.
            Err(error) => {
                tracing::warn!(pool = name, %error, "the agent can't parse the pool's reserved addresses. It keeps the reserved addresses of the last successful parse");
            }
        }
        let cooldown = pool.spec.cooldown();
        let blocks = self.0.node_state.pool_use(name, cooldown);
        let wanted = self.wanted_blocks(name);
        let releasing = self.0.node_state.blocks_releasing(name);
        let now = Instant::now();
        let healthy = self.0.cluster.api_healthy();
        let mut pools = self.pools();
        let state = pools.entry(name.to_owned()).or_default();
        state.observe_releases(releasing, now);
        state.observe_status(Supply::of(pool), pool.metadata.resource_version.as_deref(), now);
        let usage = self.use_of(pool, blocks, state, now);
        let decision = decide(&usage);
        let mut next = next_change(&usage);
        // Cancelling a release is faster than claiming another block.
        let (at, not_before) = self.0.claims.quiet_time();
        if state.waiting > 0 && self.0.node_state.cancel_release(&wanted, at, not_before) {
            tracing::info!(
                pool = name,
                "the agent cancelled the release of a block, because a pod is waiting for an address"
            );
            return next;
        }
        if decision.claim > 0 {
            match state.may_claim(now) {
                None => {
                    state.claiming += decision.claim;
                    let cooled_only = usage.blocks.iter().any(is_all_cooling);
                    let options = ClaimOptions { cooled_only, status_may_be_outdated: state.status_may_be_outdated() };
                    tokio::spawn(self.clone().claim(name.to_owned(), decision.claim, options));
                }
                Some(wait) => next = next.min(wait),
            }
        } else if usage.waiting > 0 && usage.claiming == 0 && decision.release.is_empty() {
            // An ADD is waiting, but this pass claims no block. If the node must not claim a block of this pool, the ADD reports the reason
            // as its error.
            if let Some(refused) = self.0.claims.refused(name) {
                state.last_error = Some(Arc::new(refused));
            }
        }
        state.notify_waiting();
        // While the API server does not answer, keep the empty blocks for new pods, because the node could not claim other blocks.
        if healthy {
            let for_others = usage.exhausted || usage.free_blocks == 0;
            for block in decision.release {
                if self.0.node_state.begin_release(&block.0) && for_others {
                    state.released_for_others = Some(now);
                }
            }
        }
        next
    }

    fn use_of(&self, pool: &AddressPool, blocks: Vec<BlockUse>, state: &PoolState, now: Instant) -> PoolUse {
        let node = self.0.cluster.node();
        let info = pool_info(pool, None, node.as_ref());
        let pool_name = pool.metadata.name.as_deref().unwrap_or_default();
        PoolUse {
            blocks,
            waiting: state.waiting.saturating_add(state.expected()),
            claiming: state.claiming.max(u32::try_from(self.0.node_state.blocks_coming(pool_name)).unwrap_or(u32::MAX)),
            block_len: 1_u32.checked_shl(u32::try_from(pool.spec.block_size_bits).unwrap_or(0)).unwrap_or(1),
            free_blocks: free_blocks(pool),
            exhausted: is_exhausted(pool),
            draining: info.draining,
            deleting: info.deleting,
            claimable: info.ready && info.admits_node && node.is_some() && !self.0.uninstalling,
            max_blocks: Some(self.0.claims.max_blocks(pool)),
            block_idle: self.0.block_idle,
            released_for_others: state.released_for_others.map(|at| now.duration_since(at)),
        }
    }

    /// Claims `count` blocks of a pool, one after another, until one claim fails.
    async fn claim(self, pool: String, count: u32, options: ClaimOptions) {
        for left in (1..=count).rev() {
            let on_unknown = |error| {
                self.pools().entry(pool.clone()).or_default().claim_outcome_unknown(error);
                self.0.wake.notify_one();
            };
            let result = self.0.claims.claim_with(&pool, options, &on_unknown).await;
            let failed = result.is_err();
            if let Err(error) = &result {
                tracing::debug!(pool, %error, "the agent could not claim a block");
            }
            let wanted = self.wanted_blocks(&pool);
            let (at, not_before) = self.0.claims.quiet_time();
            {
                let mut pools = self.pools();
                let state = pools.entry(pool.clone()).or_default();
                state.claiming = state.claiming.saturating_sub(if failed { left } else { 1 });
                // Cancel a release before the ADDs wake, so that the ADDs do not report a full pool.
                if failed && state.waiting > 0 {
                    self.0.node_state.cancel_release(&wanted, at, not_before);
                }
                state.claim_ended(result.err().map(Arc::new), Instant::now());
            }
            self.0.wake.notify_one();
            if failed {
                return;
            }
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<String, PoolState>> {
        self.0.pools.lock()
    }
}

/// The number of blocks of the pool that no node owns, according to the pool's status.
fn free_blocks(pool: &AddressPool) -> u64 {
    pool.status.as_ref().and_then(|status| u64::try_from(status.blocks.free).ok()).unwrap_or(0)
}

fn is_exhausted(pool: &AddressPool) -> bool {
    let conditions = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == condition::EXHAUSTED && condition.status == "True")
}

/// Whether all free addresses of the block are cooling down. A node with such a block claims no block that is still cooling down, because
/// the claim would bring no address that has cooled down.
fn is_all_cooling(block: &BlockUse) -> bool {
    block.cooling > 0 && block.held + block.cooling >= block.usable
}

/// The time until the node may release the next empty block.
fn next_change(pool: &PoolUse) -> Duration {
    let ages = [pool.block_idle, bobbin_ipam::demand::FIRST_USE_TIMEOUT];
    let empty = pool.blocks.iter().filter_map(|block| block.empty_for);
    let waits = empty.flat_map(|empty| ages.into_iter().filter_map(move |age| age.checked_sub(empty)));
    waits.filter(|wait| !wait.is_zero()).min().unwrap_or(CHECK_INTERVAL)
}
