//! Keeps this node's blocks of each pool: claims for ADDs that wait, for pods on their way and for the spare, retires what may give
//! nothing new, releases what is empty. What to do is decided by `addressing::stock`. A pool whose claim hangs delays no other pool.

mod pool_state;
mod retire;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_crds::AddressPool;
use bobbin_crds::pool::condition;
use bobbin_ipam::Reserved;
use bobbin_ipam::demand::{BlockUse, PoolUse, decide};
use bobbin_observability::Heartbeat;
use kube::ResourceExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::block_checkpoint::BlockCheckpoint;
use crate::choose::{expected_pool, pool_info};
use crate::claim::{ClaimError, Claims};
use crate::event::Events;
use crate::ledger::Ledger;
use crate::watch::ClusterView;
use pool_state::PoolState;

/// Something that time alone brings about is looked for at least so often. It costs the API server nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Wants of this node, by pool. Cheap to clone.
#[derive(Clone)]
pub struct Stock(Arc<Inner>);

struct Inner {
    view: ClusterView,
    ledger: Arc<Ledger>,
    claims: Claims,
    checkpoint: BlockCheckpoint,
    events: Events,
    block_idle: Duration,
    /// The node is being left: every block retires.
    leaving: bool,
    pools: Mutex<HashMap<String, PoolState>>,
    wake: Notify,
}

/// An ADD that waits for an address; while it lives, blocks are claimed for it.
#[must_use = "the demand ends when this is dropped"]
pub struct Demand {
    stock: Stock,
    pool: String,
    tried: watch::Receiver<u64>,
}

impl Demand {
    /// Waits until a claim for the pool has ended since this was last asked, or it is plain that none can be tried now; then
    /// [`Stock::trouble`] says why there is no block.
    pub async fn tried(&mut self) {
        if self.tried.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        if let Some(state) = self.stock.pools().get_mut(&self.pool) {
            state.waiting = state.waiting.saturating_sub(1);
        }
        self.stock.0.wake.notify_one();
    }
}

impl Stock {
    /// Keeps the stock by `claims`; `block_idle` is how long an empty block stays. `leaving`: every block retires.
    pub fn new(
        view: ClusterView,
        ledger: Arc<Ledger>,
        claims: Claims,
        checkpoint: BlockCheckpoint,
        events: Events,
        block_idle: Duration,
        leaving: bool,
    ) -> Stock {
        let wake = Notify::new();
        let pools = Mutex::default();
        Stock(Arc::new(Inner { view, ledger, claims, checkpoint, events, block_idle, leaving, pools, wake }))
    }

    /// Asks for an address of a pool, now. Follow the ledger's changes, and drop the answer when the wait is over.
    pub fn demand(&self, pool: &str) -> Demand {
        let tried = {
            let mut pools = self.pools();
            let state = pools.entry(pool.to_owned()).or_default();
            state.waiting += 1;
            state.unanswered = true;
            state.tried.subscribe()
        };
        self.0.wake.notify_one();
        Demand { stock: self.clone(), pool: pool.to_owned(), tried }
    }

    /// Why the last claim in a pool failed, if it did; for the sentence that a user gets.
    pub fn trouble(&self, pool: &str) -> Option<Arc<ClaimError>> {
        self.pools().get(pool).and_then(|state| state.trouble.clone())
    }

    /// Looks whenever something changed, for ever.
    pub async fn run(&self, beat: Heartbeat) {
        let mut ledger = self.0.ledger.changed();
        let mut view = self.0.view.changed();
        loop {
            let next = self.look();
            beat.beat();
            tokio::select! {
                () = self.0.wake.notified() => {}
                changed = ledger.changed() => if changed.is_err() { return },
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// One look at all pools. Returns when time alone may next change something.
    fn look(&self) -> Duration {
        self.note_expected();
        self.retire();
        let known = self.0.view.pools();
        let held = self.0.ledger.blocks();
        let names: BTreeSet<String> =
            known.iter().map(|pool| pool.name_any()).chain(held.into_iter().map(|block| block.held.pool)).collect();
        let mut next = CHECK_INTERVAL;
        for name in names {
            // A pool that the view does not know cannot be judged: nothing is claimed from it and nothing given back.
            if let Some(pool) = self.0.view.pool(&name) {
                next = next.min(self.look_at(&name, &pool));
            }
        }
        next.max(Duration::from_millis(20))
    }

    /// Pods that have come to this node and are without an address yet will want one.
    fn note_expected(&self) {
        let now = Instant::now();
        for pod in self.0.view.take_newly_scheduled() {
            if let Some(pool) = expected_pool(&self.0.view, &pod) {
                self.pools().entry(pool).or_default().expect(pod.uid, now);
            }
        }
        let mut pools = self.pools();
        if pools.values().any(PoolState::expects) {
            let served: Vec<String> =
                self.0.ledger.attachments().into_iter().map(|attachment| attachment.pod.uid).collect();
            pools.values_mut().for_each(|state| state.forget_expected(&served, now));
        }
    }

    fn look_at(&self, name: &str, pool: &AddressPool) -> Duration {
        match Reserved::parse(&pool.spec.reserved) {
            Ok(reserved) => self.0.ledger.set_reserved(name, &reserved),
            // The schema refuses such a pool; what was reserved before stays so.
            Err(error) => tracing::warn!(pool = name, %error, "what the pool reserves can't be read"),
        }
        let cooldown = pool.spec.cooldown();
        let blocks = self.0.ledger.pool_use(name, cooldown);
        let wanted = self.wanted_blocks(name);
        let now = Instant::now();
        let healthy = self.0.view.api_healthy();
        let mut pools = self.pools();
        let state = pools.entry(name.to_owned()).or_default();
        state.pool_says(free_blocks(pool), pool.metadata.resource_version.as_deref());
        let facts = self.use_of(pool, blocks, state, now);
        let decision = decide(&facts);
        let mut next = next_change(&facts);
        // A block on its way back serves sooner than another one could be claimed.
        let (at, not_before) = self.0.claims.quiet_time();
        if state.waiting > 0 && self.0.ledger.cancel_release(&wanted, at, not_before) {
            tracing::info!(pool = name, "a pod waits for an address: a block that was being released stays");
            return next;
        }
        if decision.claim > 0 {
            match state.may_claim(now) {
                None => {
                    state.claiming += decision.claim;
                    let cooled_only = facts.blocks.iter().any(all_cool);
                    tokio::spawn(self.clone().claim(name.to_owned(), decision.claim, cooled_only));
                }
                Some(wait) => next = next.min(wait),
            }
        } else if facts.waiting > 0 && facts.claiming == 0 && decision.release.is_empty() {
            // Nothing is tried: what forbids it is why the ADD waits.
            if let Some(refused) = self.0.claims.refused(name) {
                state.trouble = Some(Arc::new(refused));
            }
        }
        state.answer();
        // Without the API server an empty block is better kept: it serves pods.
        if healthy {
            let for_others = facts.exhausted || facts.free_blocks == 0;
            for block in decision.release {
                if self.0.ledger.begin_release(&block.0) && for_others {
                    state.released_for_others = Some(now);
                }
            }
        }
        next
    }

    fn use_of(&self, pool: &AddressPool, blocks: Vec<BlockUse>, state: &PoolState, now: Instant) -> PoolUse {
        let node = self.0.view.node();
        let facts = pool_info(pool, None, node.as_ref());
        let pool_name = pool.metadata.name.as_deref().unwrap_or_default();
        PoolUse {
            blocks,
            waiting: state.waiting.saturating_add(state.expected()),
            claiming: state.claiming.max(u32::try_from(self.0.ledger.blocks_coming(pool_name)).unwrap_or(u32::MAX)),
            block_len: 1_u32.checked_shl(u32::try_from(pool.spec.block_size_bits).unwrap_or(0)).unwrap_or(1),
            free_blocks: free_blocks(pool),
            exhausted: is_exhausted(pool),
            draining: facts.draining,
            deleting: facts.deleting,
            claimable: facts.ready && facts.admits_node && node.is_some() && !self.0.leaving,
            max_blocks: pool.spec.max_blocks_per_node.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
            block_idle: self.0.block_idle,
            released_for_others: state.released_for_others.map(|at| now.duration_since(at)),
        }
    }

    /// Claims some blocks, one after another.
    async fn claim(self, pool: String, count: u32, cooled_only: bool) {
        for left in (1..=count).rev() {
            let on_unknown = |error| {
                self.pools().entry(pool.clone()).or_default().claim_outcome_unknown(error);
                self.0.wake.notify_one();
            };
            let result = self.0.claims.claim_telling(&pool, cooled_only, &on_unknown).await;
            let failed = result.is_err();
            if let Err(error) = &result {
                tracing::debug!(pool, %error, "no block was claimed");
            }
            {
                let mut pools = self.pools();
                let state = pools.entry(pool.clone()).or_default();
                state.claiming = state.claiming.saturating_sub(if failed { left } else { 1 });
                state.claim_ended(result.err().map(Arc::new), Instant::now());
            }
            self.0.wake.notify_one();
            if failed {
                return;
            }
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<String, PoolState>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks of the pool that no node has, as its status says.
fn free_blocks(pool: &AddressPool) -> u64 {
    pool.status.as_ref().and_then(|status| u64::try_from(status.blocks.free).ok()).unwrap_or(0)
}

fn is_exhausted(pool: &AddressPool) -> bool {
    let conditions = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == condition::EXHAUSTED && condition.status == "True")
}

/// Whether the node has such a block, another one that cools is of no use.
fn all_cool(block: &BlockUse) -> bool {
    block.cooling > 0 && block.held + block.cooling >= block.usable
}

/// When an empty block is next old enough for something.
fn next_change(pool: &PoolUse) -> Duration {
    let ages = [pool.block_idle, bobbin_ipam::demand::FIRST_USE_TIMEOUT];
    let empty = pool.blocks.iter().filter_map(|block| block.empty_for);
    let waits = empty.flat_map(|empty| ages.into_iter().filter_map(move |age| age.checked_sub(empty)));
    waits.filter(|wait| !wait.is_zero()).min().unwrap_or(CHECK_INTERVAL)
}
