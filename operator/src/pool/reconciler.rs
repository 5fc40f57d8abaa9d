//! Reconciles one pool. While this operator leads, a task runs a pass after each change of the pool.
//!
//! Every write tests the resourceVersion or UID that the operator read. If two operators lead at once, the stale write fails
//! and does no harm.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::backoff;
use bobbin_crds::{AddressPool, FINALIZER};
use bobbin_ipam::free_blocks::FreeBlockTarget;
use bobbin_ipam::pool_shape::{PoolShape, accepted_entries};

use super::accept::is_unnumbered;
use super::error::ReconcileError;
use super::write;
use super::write::failed_blocks::FailedBlocks;
use crate::cache::{BlockInfo, PoolView};
use crate::context::Context;
use crate::metrics::PassResult;

/// How long the reconciler waits after a change before it starts a pass. Changes during this wait cause no additional
/// pass.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(10);
/// How often the operator reconciles a pool with a rejected or undecided subnet, because the conflict may have ended.
const CONFLICT_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the operator reconciles an unchanged pool.
pub(super) const RESYNC_INTERVAL: Duration = Duration::from_mins(1);
/// How long the watch may take to show a block that this operator created. After this time, the block counts as deleted.
const CARVED_BLOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// The first and the longest wait after a pass that failed because an object was stale.
const STALE_RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// The first and the longest wait after a pass that failed for a reason other than a stale object.
const ERROR_RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The task that reconciles one pool, with the state that it keeps between passes.
pub(super) struct PoolReconciler {
    pub(super) context: Arc<Context>,
    pub(super) name: Arc<str>,
    /// The pool as the reconciler last wrote it; `None` once the watch has shown that write.
    written: Option<WrittenPool>,
    pub(super) last_status_write: Option<Instant>,
    /// The blocks that this reconciler created and that the watch has not shown yet, by index, with the time of their
    /// creation.
    pub(super) carved: BTreeMap<u64, (BlockInfo, Instant)>,
    pub(super) failed_blocks: FailedBlocks,
    /// Whether the cache reserves the Node addresses that an earlier leader wrote to the pool's status.
    has_inherited: bool,
    pub(super) free_target: FreeBlockTarget,
}

/// A pool that the reconciler wrote, and the version that the write replaced.
struct WrittenPool {
    /// The pool's resourceVersion that the watch had shown before the write.
    shown_version: String,
    pool: AddressPool,
}

/// Reconciles a pool until the task is aborted.
pub(super) async fn run(context: Arc<Context>, name: Arc<str>) {
    let changed = context.cache.pool_notify(&name);
    let mut reconciler = PoolReconciler::new(context, name);
    let mut failures = 0_u32;
    loop {
        if !reconciler.context.is_active() {
            reconciler.stand_by();
            reconciler.context.role_change().await;
            continue;
        }
        reconciler.context.passes.begin(&reconciler.name, Instant::now());
        let result = reconciler.reconcile().await;
        reconciler.context.metrics.pass_ended(pass_result(&result));
        let error = result.as_ref().err().map(ToString::to_string);
        reconciler.context.passes.end(&reconciler.name, error, Instant::now());
        match result {
            Ok(next) => {
                failures = 0;
                let next = reconciler.failed_blocks.next_retry(Instant::now()).map_or(next, |wait| next.min(wait));
                tokio::select! {
                    () = changed.notified() => {}
                    () = tokio::time::sleep(next) => {}
                }
                tokio::time::sleep(DEBOUNCE).await;
            }
            Err(error) => {
                let (base, cap) = if error.is_expected() { STALE_RETRY } else { ERROR_RETRY };
                if failures == 0 && !error.is_expected() {
                    tracing::warn!(pool = %reconciler.name, %error, "failed to reconcile the pool; the operator retries");
                } else {
                    tracing::debug!(pool = %reconciler.name, %error, failures, "failed to reconcile the pool");
                }
                tokio::time::sleep(backoff(failures, base, cap)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

fn pass_result<T>(result: &Result<T, ReconcileError>) -> PassResult {
    match result {
        Ok(_) => PassResult::Ok,
        Err(ReconcileError::Stale) => PassResult::Outdated,
        Err(_) => PassResult::Error,
    }
}

impl PoolReconciler {
    fn new(context: Arc<Context>, name: Arc<str>) -> Self {
        Self {
            free_target: FreeBlockTarget::new(&name, Instant::now()),
            context,
            name,
            written: None,
            last_status_write: None,
            carved: BTreeMap::new(),
            failed_blocks: FailedBlocks::default(),
            has_inherited: false,
        }
    }

    /// Forgets the state that only a leader needs, because another operator may lead now. Removes the pool's metrics,
    /// because only the leader exports metrics of pools.
    fn stand_by(&mut self) {
        (self.written, self.has_inherited) = (None, false);
        self.carved.clear();
        self.free_target = FreeBlockTarget::new(&self.name, Instant::now());
        self.failed_blocks = FailedBlocks::default();
        self.context.metrics.remove_pool(&self.name);
        self.context.passes.forget(&self.name);
    }

    /// Runs one pass. Returns how long to wait before the next pass if nothing changes.
    async fn reconcile(&mut self) -> Result<Duration, ReconcileError> {
        let mut view = self.view();
        if view.unreadable {
            // An event reports that the pool can't be decoded. The operator carves, releases and deletes no block of such a
            // pool.
            return Ok(RESYNC_INTERVAL);
        }
        self.complete_releases(&view).await;
        let Some(pool) = view.pool.clone() else {
            return self.delete_orphaned_blocks(&view).await;
        };
        let pool = self.newest(pool);
        if pool.metadata.deletion_timestamp.is_some() {
            return self.finish_deletion(&pool, &view).await;
        }
        if !pool.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER) {
            let pool = write::add_finalizer(&self.context, &pool).await?;
            self.remember(&view, pool);
            return Ok(Duration::ZERO);
        }
        let (pool, acceptance) = self.accept(&pool, &view).await?;
        let shape = view.shape(&pool, &acceptance.listed);
        // The operator writes the block numbers to the status before it creates blocks with these numbers.
        let is_written = acceptance.listed == accepted_entries(pool.status.as_ref()) && !is_unnumbered(&pool);
        let may_carve = !pool.spec.draining && is_written;
        // The operator reports the status even if it could not read or write the blocks.
        let blocks = match &shape {
            Ok(shape) => self.reconcile_blocks(&pool, shape, may_carve, &mut view).await,
            Err(_) => Ok(None),
        };
        let is_open = acceptance.undecided || !acceptance.rejected.is_empty();
        let next = self.report_status(&pool, &view, &shape, &acceptance).await?;
        let next = blocks?.map_or(next, |wait| next.min(wait));
        Ok(if is_open { next.min(CONFLICT_RETRY_INTERVAL) } else { next })
    }

    /// Creates and deletes blocks of the pool. Returns the time until the next deletion is due.
    async fn reconcile_blocks(
        &mut self,
        pool: &AddressPool,
        shape: &PoolShape,
        may_carve: bool,
        view: &mut PoolView,
    ) -> Result<Option<Duration>, ReconcileError> {
        let missing = self.missing_blocks(shape, view);
        self.recreate_blocks(pool, shape, &missing, view).await?;
        let next = if may_carve {
            self.keep_free_blocks(pool, shape, &missing, view).await?
        } else {
            let free = view.blocks.iter().filter(|block| block.is_free()).count();
            self.context.metrics.set_free_blocks(&self.name, free as u64, 0);
            None
        };
        self.delete_blocks(write::blocks::unusable(shape, view, pool.spec.cooldown())).await;
        Ok(next)
    }

    async fn complete_releases(&mut self, view: &PoolView) {
        let now = Instant::now();
        let may_write = |index| self.failed_blocks.may_write(index, now);
        let writes = write::blocks::complete_releases(&self.context, view, &self.name, may_write).await;
        self.failed_blocks.record(&self.context, &self.name, writes);
    }

    /// The cached pool and blocks, plus the blocks that this reconciler created and that the cache does not contain yet.
    fn view(&mut self) -> PoolView {
        let mut view = self.context.cache.with(|index| {
            self.has_inherited = self.has_inherited || index.inherit_node_addresses(&self.name, Instant::now());
            index.view(&self.name)
        });
        let shown: HashSet<u64> = view.blocks.iter().map(|block| block.index).collect();
        self.carved.retain(|index, (_, when)| !shown.contains(index) && when.elapsed() < CARVED_BLOCK_TIMEOUT);
        if !self.carved.is_empty() {
            view.blocks.extend(self.carved.values().map(|(block, _)| block.clone()));
            view.blocks.sort_by_key(|block| block.index);
        }
        view
    }

    /// The pool as this reconciler last wrote it, if the cache does not show that write yet. Otherwise the cached pool
    /// `shown`.
    fn newest(&mut self, shown: AddressPool) -> AddressPool {
        let version = shown.metadata.resource_version.as_ref();
        let is_behind = |written: &&WrittenPool| {
            version == Some(&written.shown_version) && shown.metadata.uid == written.pool.metadata.uid
        };
        if let Some(written) = self.written.as_ref().filter(is_behind) {
            return written.pool.clone();
        }
        self.written = None;
        shown
    }

    pub(super) fn remember(&mut self, view: &PoolView, pool: AddressPool) {
        let shown = view.pool.as_ref().and_then(|pool| pool.metadata.resource_version.clone());
        self.written = shown.map(|shown_version| WrittenPool { shown_version, pool });
    }
}
