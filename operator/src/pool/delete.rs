//! Finishes the deletion of a pool, and deletes the free blocks that a deleted pool left behind.

use std::time::{Duration, Instant};

use bobbin_api_client::Lenient;
use bobbin_crds::pool::DEFAULT_COOLDOWN;
use bobbin_crds::{AddressBlock, AddressPool};
use k8s_openapi::jiff::Timestamp;

use super::accept::AcceptanceResult;
use super::error::ReconcileError;
use super::reconciler::PoolReconciler;
use super::write;
use crate::cache::objects::PartialAssignment;
use crate::cache::{BlockInfo, PoolView};
use crate::live_reads;

/// How often the reconciler checks whether a pool is gone, after it has removed the pool's finalizer.
const REMOVED_POOL_INTERVAL: Duration = Duration::from_secs(1);
/// How often the reconciler handles the remaining blocks of a deleted pool.
const ORPHANED_BLOCKS_INTERVAL: Duration = Duration::from_secs(30);

impl PoolReconciler {
    /// Handles a pool that is being deleted: deletes each free block when the block has cooled down, and reports which
    /// nodes use claimed blocks. Removes the pool's finalizer when no block is left.
    ///
    /// While the pool exists, no other pool gets its subnets, so no pod gets an address that still cools down.
    pub(super) async fn finish_deletion(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
    ) -> Result<Duration, ReconcileError> {
        let (cooldown, now) = (pool.spec.cooldown(), Timestamp::now());
        self.delete_blocks(cooled(view, cooldown, now)).await;
        // It is not enough to wait for the cool-down of the blocks. The block of a released address may be missing, for
        // example after a restore of etcd. So the operator also waits for the cool-down of each address.
        let has_cooled = view.cooling == 0;
        if has_cooled && is_empty(view) && self.is_unused().await? {
            write::remove_finalizer(&self.context, pool).await?;
            return Ok(REMOVED_POOL_INTERVAL);
        }
        let acceptance = AcceptanceResult::unchanged(pool);
        let shape = view.shape(pool, &acceptance.listed);
        let next = self.report_status(pool, view, &shape, &acceptance).await?;
        Ok(next_cooled(view, cooldown, now).map_or(next, |left| next.min(left)))
    }

    /// Deletes free blocks, except blocks that must wait after a failed write.
    pub(super) async fn delete_blocks<'a>(&mut self, blocks: impl Iterator<Item = &'a BlockInfo>) {
        let now = Instant::now();
        let blocks: Vec<_> = blocks.filter(|block| self.failed_blocks.may_write(block.index, now)).collect();
        let writes = write::blocks::delete(&self.context, blocks.into_iter(), &self.name).await;
        self.failed_blocks.record(&self.context, &self.name, writes);
    }

    /// Whether the API server has no block and no assignment of the pool.
    async fn is_unused(&self) -> Result<bool, ReconcileError> {
        let fields = format!("spec.poolName={}", self.name);
        let mut left = 0;
        live_reads::for_each(&self.context.clients, &fields, |_: Lenient<AddressBlock>| left += 1).await?;
        live_reads::for_each(&self.context.clients, &fields, |_: Lenient<PartialAssignment>| left += 1).await?;
        Ok(left == 0)
    }

    /// Deletes the free blocks of a pool that no longer exists, when they have cooled down. The cool-down of that pool
    /// is unknown, so the default cool-down counts.
    pub(super) async fn delete_orphaned_blocks(&mut self, view: &PoolView) -> Result<Duration, ReconcileError> {
        self.context.metrics.remove_pool(&self.name);
        let now = Timestamp::now();
        let orphans = || cooled(view, DEFAULT_COOLDOWN, now);
        if orphans().next().is_some() && write::pool_is_gone(&self.context, &self.name).await? {
            self.delete_blocks(orphans()).await;
        }
        Ok(ORPHANED_BLOCKS_INTERVAL)
    }
}

/// Whether the cache contains no block and no assignment of the pool.
fn is_empty(view: &PoolView) -> bool {
    view.blocks.is_empty() && view.used == 0
}

/// The free blocks that no assignment names and that are not being deleted.
fn deletable(view: &PoolView) -> impl Iterator<Item = &BlockInfo> {
    view.blocks.iter().filter(|block| block.is_free() && block.assigned == 0 && !block.deleting)
}

/// The deletable blocks whose addresses have cooled down. If the operator deleted a block during its cool-down, the
/// time of the release would be lost.
pub(super) fn cooled(view: &PoolView, cooldown: Duration, now: Timestamp) -> impl Iterator<Item = &BlockInfo> {
    deletable(view).filter(move |block| block.has_cooled(cooldown, now))
}

/// The shortest time until a deletable block has cooled down. `None` if no deletable block is still cooling down.
fn next_cooled(view: &PoolView, cooldown: Duration, now: Timestamp) -> Option<Duration> {
    deletable(view).map(|block| block.cooldown_left(cooldown, now)).filter(|left| !left.is_zero()).min()
}

/// The free blocks that no assignment names and whose release the operator must complete.
pub(super) fn unfinished_releases(
    view: &PoolView,
    cooldown: Duration,
    now: Timestamp,
) -> impl Iterator<Item = &BlockInfo> {
    view.blocks
        .iter()
        .filter(move |block| block.is_free() && block.assigned == 0 && block.has_unfinished_release(cooldown, now))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::cache::BlockOwner;

    fn block(node: Option<&str>, finalizer: bool, deleting: bool) -> BlockInfo {
        let owner = node.map_or(BlockOwner::Unclaimed, |node| BlockOwner::Node(node.into()));
        BlockInfo { owner, finalizer: finalizer.then_some(0), deleting, ..BlockInfo::default() }
    }

    #[test]
    fn a_pool_is_empty_when_it_has_no_block_and_no_address() {
        assert!(is_empty(&PoolView::default()));
        assert!(!is_empty(&PoolView { used: 1, ..PoolView::default() }));
        assert!(!is_empty(&PoolView { blocks: vec![block(None, false, true)], ..PoolView::default() }));
    }

    #[test]
    fn a_claimed_block_keeps_its_finalizer_and_is_not_deleted() {
        let view =
            PoolView { blocks: vec![block(Some("n1"), true, false), block(None, true, true)], ..PoolView::default() };
        assert_eq!(deletable(&view).count(), 0);
        assert_eq!(unfinished_releases(&view, DEFAULT_COOLDOWN, Timestamp::UNIX_EPOCH).count(), 1);
    }

    #[test]
    fn an_assigned_or_unreadable_block_keeps_its_finalizer_and_is_not_deleted() {
        let assigned = BlockInfo { assigned: 1, ..block(None, true, false) };
        let unreadable = BlockInfo { finalizer: Some(0), ..BlockInfo::unreadable(3) };
        let view = PoolView { blocks: vec![assigned, unreadable], ..PoolView::default() };
        assert_eq!(deletable(&view).count(), 0);
        assert_eq!(unfinished_releases(&view, DEFAULT_COOLDOWN, Timestamp::UNIX_EPOCH).count(), 0);
    }

    #[test]
    fn a_block_is_deleted_after_its_cool_down() {
        let (cooldown, now) = (Duration::from_secs(130), Timestamp::UNIX_EPOCH);
        let since = |seconds| BlockInfo {
            free_since: Some(MicroTime(now + SignedDuration::from_secs(seconds))),
            ..block(None, false, false)
        };
        let of = |blocks: Vec<BlockInfo>| PoolView { blocks, ..PoolView::default() };
        let view = of(vec![since(-30), since(-130), block(None, false, false), since(10)]);
        assert_eq!(cooled(&view, cooldown, now).count(), 2);
        assert_eq!(cooled(&view, Duration::ZERO, now).count(), 4);
        assert_eq!(next_cooled(&view, cooldown, now), Some(Duration::from_secs(100)));
        assert_eq!(next_cooled(&of(vec![since(-130)]), cooldown, now), None);
        assert_eq!(unfinished_releases(&view, cooldown, now).count(), 0, "the operator's clock may be slow");
        assert_eq!(
            unfinished_releases(&of(vec![since(7200)]), cooldown, now).count(),
            1,
            "the cool-down would not end"
        );
    }
}
