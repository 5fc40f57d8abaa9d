//! Looks after one pool: a task per pool that carries out what `acceptance`, `carve`, `finish` and `status` decide.
//!
//! It is woken by what the watches show, acts only while this operator leads, and after a failure waits longer each time.
//! Every write carries the resourceVersion or UID of what was looked at, so a second operator is only in the way of itself.

mod blocks;
mod carving;
mod residents;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, ReadError, Refusal, UnknownWhy, backoff};
use bobbin_crds::pool::{AcceptedSubnet, condition};
use bobbin_crds::{AddressBlock, AddressPool, AddressPoolStatus, FINALIZER};
use bobbin_ipam::overlap::{Overlap, SubnetConflict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;

use crate::acceptance::{self, Ruling};
use crate::facts::{BlockFact, PoolView};
use crate::finish::{self, Left};
use crate::fresh;
use crate::layout::{PoolShape, accepted_entries};
use crate::run::Shared;
use crate::slim::SlimAssignment;
use crate::status::{self, Inputs, Urgency};

/// Changes that come within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// A pool whose subnets are not all accepted is looked at this often: what is in its way may be gone.
const OVERLAP_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// A pool that has nothing to do is looked at this often.
const IDLE_INTERVAL: Duration = Duration::from_mins(10);
/// A block that was carved and that the watch has not shown within this time is not there.
const CARVED_BLOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a turn did not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    /// The API server is away.
    #[error("the API server can't be read: {0}")]
    Read(#[from] ReadError),
    /// The API server said no, for a reason that needs somebody's attention.
    #[error("{what} was refused: {why}")]
    Refused {
        /// What was to be written.
        what: &'static str,
        /// Why not.
        why: Refusal,
    },
    /// The object has changed, or is gone: look again.
    #[error("what was looked at has changed")]
    Stale,
    /// Nobody knows; the next turn reads it back.
    #[error("nobody knows whether {what} was written: {why}")]
    Unknown {
        /// What was to be written.
        what: &'static str,
        /// Why nobody knows.
        why: UnknownWhy,
    },
}

/// The keeper of one pool.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    name: Arc<str>,
    /// The version that the last status was written over, and what came of it, until the watch shows it.
    written: Option<(String, AddressPool)>,
    last_status: Option<Instant>,
    /// Blocks that were carved and that the watch has not shown yet.
    carved: BTreeMap<u64, (BlockFact, Instant)>,
}

/// Looks after a pool until the task is ended.
pub(crate) async fn keep(shared: Arc<Shared>, name: Arc<str>) {
    let bell = shared.board.bell(&name);
    let mut keeper = Keeper { shared, name, written: None, last_status: None, carved: BTreeMap::new() };
    let mut failures = 0_u32;
    loop {
        if !keeper.shared.may_act() {
            keeper.written = None;
            keeper.shared.changed_roles().await;
            continue;
        }
        match keeper.turn().await {
            Ok(next) => {
                failures = 0;
                tokio::select! {
                    () = bell.notified() => {}
                    () = tokio::time::sleep(next) => {}
                }
                tokio::time::sleep(DEBOUNCE).await;
            }
            Err(error) => {
                let (base, cap) = match &error {
                    TurnError::Stale => (Duration::from_millis(20), Duration::from_secs(2)),
                    _ => (Duration::from_millis(250), Duration::from_secs(5)),
                };
                if failures == 0 && !matches!(error, TurnError::Stale) {
                    tracing::warn!(pool = %keeper.name, %error, "a pool could not be looked after; trying again");
                } else {
                    tracing::debug!(pool = %keeper.name, %error, failures, "a pool could not be looked after");
                }
                tokio::time::sleep(backoff(failures, base, cap)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

impl Keeper {
    /// Does what is to be done now. Returns when to look again if nothing happens.
    async fn turn(&mut self) -> Result<Duration, TurnError> {
        let mut view = self.view();
        if view.unreadable {
            // Nothing of it is carved, freed or deleted; an event has told it.
            return Ok(IDLE_INTERVAL);
        }
        blocks::release(&self.shared, &view, &self.name).await?;
        let Some(pool) = view.pool.clone() else {
            return self.orphans(&view).await;
        };
        let pool = self.newest(&pool);
        if pool.metadata.deletion_timestamp.is_some() {
            return self.finish(&pool, &view).await;
        }
        if !pool.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER) {
            let pool = write::add_finalizer(&self.shared, &pool).await?;
            self.remember(&view, pool);
            return Ok(Duration::ZERO);
        }
        let (pool, ruling) = self.accept(&pool, &view).await?;
        let shape = shape_of(&pool, &ruling.listed);
        if let Ok(shape) = &shape {
            let residents = self.residents(shape, &view);
            self.carve_again(&pool, shape, &residents, &mut view).await?;
            if !pool.spec.draining && ruling.listed == accepted_entries(pool.status.as_ref()) {
                self.carve(&pool, shape, &residents, &mut view).await?;
            }
            blocks::remove_useless(&self.shared, shape, &view).await?;
        }
        let again = self.tell(&pool, &view, &shape, ruling.listed, &ruling.refused).await?;
        let open = ruling.waits || !ruling.refused.is_empty();
        Ok(if open { again.min(OVERLAP_RETRY_INTERVAL) } else { again })
    }

    /// The pool as the watches have shown it, with what was carved since.
    fn view(&mut self) -> PoolView {
        let mut view = self.shared.board.facts(|facts| facts.view(&self.name));
        let shown: std::collections::HashSet<u64> = view.blocks.iter().map(|block| block.index).collect();
        self.carved.retain(|index, (_, when)| !shown.contains(index) && when.elapsed() < CARVED_BLOCK_TIMEOUT);
        if !self.carved.is_empty() {
            view.blocks.extend(self.carved.values().map(|(block, _)| block.clone()));
            view.blocks.sort_by_key(|block| block.index);
        }
        view
    }

    /// The pool as this keeper has last written it, if the watch still shows what it was written over.
    fn newest(&mut self, shown: &AddressPool) -> AddressPool {
        match &self.written {
            Some((over, written))
                if shown.metadata.resource_version.as_ref() == Some(over)
                    && shown.metadata.uid == written.metadata.uid =>
            {
                written.clone()
            }
            _ => {
                self.written = None;
                shown.clone()
            }
        }
    }

    fn remember(&mut self, view: &PoolView, written: AddressPool) {
        let shown = view.pool.as_ref().and_then(|pool| pool.metadata.resource_version.clone());
        self.written = shown.map(|version| (version, written));
    }

    /// The acceptance protocol as far as it goes now. Returns the pool as it was looked at last, and what it shall list.
    async fn accept(&mut self, pool: &AddressPool, view: &PoolView) -> Result<(AddressPool, Ruling), TurnError> {
        let old = accepted_entries(pool.status.as_ref()).to_vec();
        if !acceptance::is_open(pool) {
            return Ok((pool.clone(), Ruling { listed: old, ..Ruling::default() }));
        }
        let (pools, conflicts) = self.shared.board.facts(|facts| (facts.pools(), conflicts(facts, &self.name, pool)));
        let entries = acceptance::entries(pools.iter().map(AsRef::as_ref));
        let proposed = acceptance::propose(pool, &entries, &conflicts, &MicroTime(Timestamp::now()));
        let mut pool = pool.clone();
        if proposed.listed != old {
            // Written down before the look: whoever looks later sees it.
            pool = self.write_listed(&pool, view, &proposed.listed, &proposed.refused).await?;
        }
        if !acceptance::is_pending(&pool) {
            return Ok((pool, proposed));
        }
        let Some(look) = fresh::look(&self.shared.clients, &self.name).await? else { return Err(TurnError::Stale) };
        if look.pool.metadata.uid != pool.metadata.uid || look.pool.metadata.deletion_timestamp.is_some() {
            return Err(TurnError::Stale);
        }
        let mut confirmed = acceptance::confirm(&look.pool, &look.entries, &look.conflicts);
        confirmed.refused.extend(proposed.refused);
        let mut pool = look.pool;
        if confirmed.listed != accepted_entries(pool.status.as_ref()) {
            // Refused if anybody has written the pool since the look saw it.
            pool = self.write_listed(&pool, view, &confirmed.listed, &confirmed.refused).await?;
        }
        Ok((pool, confirmed))
    }

    async fn write_listed(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
        listed: &[AcceptedSubnet],
        refused: &[Overlap],
    ) -> Result<AddressPool, TurnError> {
        let shape = shape_of(pool, listed);
        let status = Self::status(pool, view, &shape, listed.to_vec(), refused, &[]);
        self.write_status(pool, view, status).await
    }

    fn status(
        pool: &AddressPool,
        view: &PoolView,
        shape: &Result<PoolShape, String>,
        listed: Vec<AcceptedSubnet>,
        refused: &[Overlap],
        holders: &[(Arc<str>, u64)],
    ) -> AddressPoolStatus {
        let shape = shape.as_ref().map_err(String::as_str);
        let now = Timestamp::now();
        // The API keeps whole seconds.
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        status::compute(&Inputs { pool, shape, view, listed, refused, holders, now })
    }

    async fn write_status(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
        status: AddressPoolStatus,
    ) -> Result<AddressPool, TurnError> {
        let written = write::status(&self.shared, pool, status).await?;
        self.last_status = Some(Instant::now());
        self.announce(pool, &written);
        self.remember(view, written.clone());
        Ok(written)
    }

    /// Writes the status if it is due. Returns when to look again.
    async fn tell(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
        shape: &Result<PoolShape, String>,
        listed: Vec<AcceptedSubnet>,
        refused: &[Overlap],
    ) -> Result<Duration, TurnError> {
        let deleting = pool.metadata.deletion_timestamp.is_some();
        let holders = if deleting { self.shared.board.facts(|facts| facts.holders(&self.name)) } else { Vec::new() };
        let status = Self::status(pool, view, shape, listed, refused, &holders);
        self.shared.metrics.pool(&self.name, &status);
        let interval = status::interval(self.shared.status_interval, view.nodes, view.pools);
        let rest = self.last_status.map_or(Duration::ZERO, |last| interval.saturating_sub(last.elapsed()));
        let warmer = view.warmer_in.unwrap_or(IDLE_INTERVAL).max(DEBOUNCE);
        match status::urgency(pool.status.as_ref(), &status) {
            Urgency::Never => Ok(warmer.min(IDLE_INTERVAL)),
            Urgency::Soon if !rest.is_zero() => Ok(rest),
            Urgency::Soon | Urgency::Now => {
                self.write_status(pool, view, status).await?;
                Ok(warmer.min(IDLE_INTERVAL))
            }
        }
    }

    /// Events for what has become of the pool.
    fn announce(&self, old: &AddressPool, new: &AddressPool) {
        let of = |pool: &AddressPool, type_: &str| {
            pool.status.as_ref().and_then(|status| status::find(&status.conditions, type_).cloned())
        };
        let exhausted =
            |pool: &AddressPool| of(pool, condition::EXHAUSTED).filter(|condition| condition.status == "True");
        let overlaps =
            |pool: &AddressPool| of(pool, condition::READY).filter(|condition| condition.reason == "Overlaps");
        if let (None, Some(condition)) = (exhausted(old), exhausted(new)) {
            self.shared.events.warn(new, "Exhausted", "Carve", &condition.message);
        }
        if let (None, Some(condition)) = (overlaps(old), overlaps(new)) {
            self.shared.events.warn(new, "Overlaps", "Accept", &condition.message);
        }
    }

    /// A deleted pool: gives its free blocks up, says who holds the rest, and lets it go when nothing is left.
    async fn finish(&mut self, pool: &AddressPool, view: &PoolView) -> Result<Duration, TurnError> {
        blocks::delete(&self.shared, finish::deletable(view), &self.name).await?;
        if finish::left(view) == Left::Nothing && self.is_unused().await? {
            write::remove_finalizer(&self.shared, pool).await?;
            return Ok(Duration::from_secs(1));
        }
        let listed = accepted_entries(pool.status.as_ref()).to_vec();
        let shape = shape_of(pool, &listed);
        self.tell(pool, view, &shape, listed, &[]).await
    }

    /// Whether the pool has no block and no assignment, by a quorum read.
    async fn is_unused(&self) -> Result<bool, TurnError> {
        let fields = format!("spec.poolName={}", self.name);
        let mut left = 0;
        fresh::each(&self.shared.clients, &fields, |_: Lenient<AddressBlock>| left += 1).await?;
        fresh::each(&self.shared.clients, &fields, |_: Lenient<SlimAssignment>| left += 1).await?;
        Ok(left == 0)
    }

    /// Blocks of a pool that is gone: the free ones go too.
    async fn orphans(&mut self, view: &PoolView) -> Result<Duration, TurnError> {
        self.shared.metrics.no_pool(&self.name);
        if finish::deletable(view).next().is_some() && write::pool_is_gone(&self.shared, &self.name).await? {
            blocks::delete(&self.shared, finish::deletable(view), &self.name).await?;
        }
        Ok(Duration::from_secs(30))
    }
}

/// What the watches have shown to be in the way of a pool's open entries: a hint, the look decides.
fn conflicts(facts: &crate::facts::Facts, name: &str, pool: &AddressPool) -> Vec<SubnetConflict> {
    let wanted: Vec<_> = pool.spec.subnets.iter().filter_map(|entry| crate::layout::pair(entry).ok()).collect();
    let overlaps = |range: &bobbin_ipam::BlockRange| wanted.iter().any(|subnet| range.overlaps_subnet(subnet));
    let blocks =
        facts.blocks_of_others(name).into_iter().map(|(block, range)| (format!("AddressBlock {block}"), range));
    let records = facts.loose().into_iter().filter(|loose| !loose.block_is_there);
    let records = records.map(|loose| (format!("IPAssignment {} of node {}", loose.name, loose.node), loose.range));
    let left = blocks.chain(records).map(|(what, range)| SubnetConflict::leftover(what, range));
    let known = left.chain(facts.node_addresses()).filter(|conflict| overlaps(&conflict.range));
    known.chain(facts.in_the_way(name).iter().flat_map(|object| object.conflicts(&wanted))).collect()
}

/// The pool's shape with these entries listed.
fn shape_of(pool: &AddressPool, listed: &[AcceptedSubnet]) -> Result<PoolShape, String> {
    let mut pool = pool.clone();
    pool.status.get_or_insert_default().accepted_subnets = listed.to_vec();
    PoolShape::read(&pool)
}
