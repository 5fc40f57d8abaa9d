//! Carves free blocks before nodes need them, and recreates deleted blocks whose addresses are in use.

mod plan;
mod recreate;
pub(crate) mod surplus;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bobbin_crds::AddressPool;
use bobbin_ipam::pool_shape::PoolShape;
use k8s_openapi::jiff::Timestamp;

use super::error::ReconcileError;
use super::reconciler::PoolReconciler;
use super::write;
use crate::cache::{BlockInfo, PoolView};

pub(super) use plan::{all_reserved, count_outside, reserved_spans};

use plan::MissingBlocks;

impl PoolReconciler {
    /// Creates free blocks if nodes may need more, and deletes free blocks that no node needs. Returns the time until the
    /// next deletion is due.
    pub(super) async fn keep_free_blocks(
        &mut self,
        pool: &AddressPool,
        shape: &PoolShape,
        missing: &MissingBlocks,
        view: &mut PoolView,
    ) -> Result<Option<Duration>, ReconcileError> {
        let stock = plan::stock(shape, view, pool.spec.cooldown(), Timestamp::now());
        let plan = self.free_target.plan(&stock, Instant::now());
        self.context.metrics.set_free_blocks(&self.name, stock.free, self.free_target.target());
        // If nodes need further blocks, `surplus` is empty. So the queue forgets the deletions that are not sent yet.
        if plan.delete > 0 || plan.carve > 0 {
            let surplus = plan::surplus(shape, view, plan.delete);
            self.context.surplus.replace(&self.name, write::blocks::versions(surplus.into_iter(), &self.name));
        }
        if plan.carve > 0 {
            self.carve(pool, shape, missing, view, plan.carve).await?;
        }
        Ok(plan.next)
    }

    async fn carve(
        &mut self,
        pool: &AddressPool,
        shape: &PoolShape,
        missing: &MissingBlocks,
        view: &mut PoolView,
        demand: u64,
    ) -> Result<(), ReconcileError> {
        let existing = view.blocks.iter().map(|block| block.index).collect();
        let mut occupied = missing.occupied.clone();
        occupied.extend(self.failed_blocks.waiting(Instant::now()));
        let next = plan::next(shape, &existing, &occupied, &reserved_spans(shape), demand);
        if next.is_empty() || !write::blocks::may_carve(&self.context, pool).await? {
            return Ok(());
        }
        let writes = write::blocks::create(&self.context, &self.name, shape, &next).await;
        let failed = writes.first_error();
        let created: Vec<_> =
            self.failed_blocks.record(&self.context, &self.name, writes).into_iter().flatten().collect();
        // If no block was created, the API server may be refusing every block. Return the error, because an error delays
        // the next pass.
        if let Some(error) = failed
            && created.is_empty()
        {
            return Err(error);
        }
        let is_any_created = !created.is_empty();
        self.remember_carved(created, view);
        // If all blocks existed already, the cache lags behind. Do not ask for another pass then, because it would only
        // try the same blocks again.
        if is_any_created && next.len() as u64 == plan::MAX_BLOCKS_PER_PASS {
            // The pass reached its limit. The next pass carves further blocks after the status shows the new blocks.
            self.context.cache.pool_notify(&self.name).notify_one();
        }
        Ok(())
    }

    /// The blocks that do not exist although some of their addresses are assigned.
    pub(super) fn missing_blocks(&self, shape: &PoolShape, view: &PoolView) -> MissingBlocks {
        let existing = view.blocks.iter().map(|block| block.index).collect();
        let (suspects, unreadable) =
            self.context.cache.with(|index| (index.suspect_assignments(), index.unreadable_assignment_ranges()));
        plan::missing_blocks(shape, &self.name, &existing, &suspects, &unreadable)
    }

    /// Recreates missing blocks and claims each block for its former node. Also recreates blocks of a draining pool,
    /// because pods still use addresses of the pool.
    pub(super) async fn recreate_blocks(
        &mut self,
        pool: &AddressPool,
        shape: &PoolShape,
        missing: &MissingBlocks,
        view: &mut PoolView,
    ) -> Result<(), ReconcileError> {
        if missing.recreatable.is_empty() {
            return Ok(());
        }
        write::blocks::may_carve(&self.context, pool).await?;
        let mut blocks = Vec::new();
        let now = Instant::now();
        let max = pool.spec.max_blocks(self.context.max_addresses_per_node) as usize;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (index, node) in missing.recreatable.iter().filter(|(index, _)| self.failed_blocks.may_write(**index, now))
        {
            let Some(block) = write::blocks::new_block(&self.name, shape, *index) else { continue };
            // An agent's assignments could name many blocks that never existed. This limit keeps the operator from
            // creating all of them for the agent's node.
            let count = counts
                .entry(node)
                .or_insert_with(|| self.context.cache.with(|index| index.block_count(&self.name, node)));
            if *count >= max || self.context.denied.contains(node) {
                continue;
            }
            if let Some(block) = recreate::claimed(&self.context, block, node).await? {
                *count += 1;
                blocks.push((*index, block));
            }
        }
        let writes = write::blocks::create_all(&self.context, blocks).await;
        let created = self.failed_blocks.record(&self.context, &self.name, writes);
        self.remember_carved(created.into_iter().flatten(), view);
        Ok(())
    }

    fn remember_carved(&mut self, created: impl IntoIterator<Item = BlockInfo>, view: &mut PoolView) {
        for block in created {
            view.blocks.push(block.clone());
            self.carved.insert(block.index, (block, Instant::now()));
        }
        view.blocks.sort_by_key(|block| block.index);
    }
}
