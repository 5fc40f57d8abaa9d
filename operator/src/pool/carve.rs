//! Carves free blocks before nodes need them, and recreates deleted blocks whose addresses are in use.

mod plan;
mod recreate;

use std::collections::HashMap;
use std::time::Instant;

use bobbin_crds::AddressPool;
use bobbin_ipam::demand::free_block_target;

use super::error::ReconcileError;
use super::reconciler::PoolReconciler;
use super::{status, write};
use crate::cache::{BlockInfo, PoolView};
use crate::layout::PoolShape;

pub(super) use plan::{all_reserved, count_outside, reserved_spans};

use plan::MissingBlocks;

impl PoolReconciler {
    /// Creates free blocks until the pool has as many as the operator keeps ready.
    pub(super) async fn carve(
        &mut self,
        pool: &AddressPool,
        shape: &PoolShape,
        missing: &MissingBlocks,
        view: &mut PoolView,
    ) -> Result<(), ReconcileError> {
        let claimed = view.blocks.iter().filter(|block| !block.is_free()).count() as u64;
        let free = view.blocks.iter().filter(|block| status::is_claimable(shape, block)).count() as u64;
        let target = free_block_target(view.nodes as u64, claimed, shape.layout.block_count());
        let demand = target.saturating_sub(free);
        if demand == 0 {
            return Ok(());
        }
        let existing = view.blocks.iter().map(|block| block.index).collect();
        let mut occupied = missing.occupied.clone();
        occupied.extend(self.failed_blocks.waiting(Instant::now()));
        let next = plan::next(shape, &existing, &occupied, &reserved_spans(shape), demand);
        if next.is_empty() || !write::blocks::may_carve(&self.context, pool).await? {
            return Ok(());
        }
        let writes = write::blocks::create(&self.context, &self.name, shape, &next).await;
        let failed = writes.first_error();
        let created = self.failed_blocks.settle(&self.context, &self.name, writes);
        // If no block was created, the API server may refuse every block, so the next pass waits.
        if let Some(error) = failed
            && created.is_empty()
        {
            return Err(error);
        }
        self.remember_carved(created, view);
        if (next.len() as u64) < demand {
            // Either this pass reached its limit, or the pool is fully carved. The next pass carves further blocks if it can.
            self.context.cache.pool_notify(&self.name).notify_one();
        }
        Ok(())
    }

    /// The blocks that do not exist although some of their addresses are assigned.
    pub(super) fn missing_blocks(&self, shape: &PoolShape, view: &PoolView) -> MissingBlocks {
        let existing = view.blocks.iter().map(|block| block.index).collect();
        let (orphans, unreadable) =
            self.context.cache.with(|index| (index.suspect_assignments(), index.unreadable_assignment_ranges()));
        plan::missing_blocks(shape, &self.name, &existing, &orphans, &unreadable)
    }

    /// Recreates missing blocks and claims each for its former node. Also recreates blocks of a draining pool, because pods
    /// still use its addresses.
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
            // Without this limit, an agent could claim blocks by assignments that name blocks which never existed.
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
        let created = self.failed_blocks.settle(&self.context, &self.name, writes);
        self.remember_carved(created, view);
        Ok(())
    }

    fn remember_carved(&mut self, created: Vec<BlockInfo>, view: &mut PoolView) {
        for block in created {
            view.blocks.push(block.clone());
            self.carved.insert(block.index, (block, Instant::now()));
        }
        view.blocks.sort_by_key(|block| block.index);
    }
}
