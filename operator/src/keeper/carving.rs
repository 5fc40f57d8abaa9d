//! The stock of free blocks, and blocks that are made again. `carve` decides; this reads, and creates.

use std::time::Instant;

use bobbin_crds::AddressPool;
use bobbin_ipam::demand::free_block_target;

use super::{Keeper, TurnError, blocks};
use crate::carve::{self, Residents};
use crate::facts::{BlockFact, PoolView};
use crate::layout::PoolShape;
use crate::status;

impl Keeper {
    /// Keeps the stock of free blocks.
    pub(super) async fn carve(
        &mut self,
        pool: &AddressPool,
        shape: &PoolShape,
        residents: &Residents,
        view: &mut PoolView,
    ) -> Result<(), TurnError> {
        let claimed = view.blocks.iter().filter(|block| !block.is_free()).count() as u64;
        let free = view.blocks.iter().filter(|block| status::claimable(shape, block)).count() as u64;
        let target = free_block_target(view.nodes as u64, claimed, shape.layout.block_count());
        let missing = target.saturating_sub(free);
        if missing == 0 {
            return Ok(());
        }
        let there = view.blocks.iter().map(|block| block.index).collect();
        let next = carve::next(shape, &there, &residents.held, &carve::reserved_spans(shape), missing);
        if next.is_empty() || !blocks::may_carve(&self.shared, pool).await? {
            return Ok(());
        }
        let created = blocks::create(&self.shared, &self.name, shape, &next).await?;
        self.remember_carved(created, view);
        if next.len() as u64 >= missing {
            return Ok(());
        }
        // There is more to carve, or nothing left to carve: another turn tells.
        self.shared.board.bell(&self.name).notify_one();
        Ok(())
    }

    /// Records of the pool's addresses without a block.
    pub(super) fn residents(&self, shape: &PoolShape, view: &PoolView) -> Residents {
        let there = view.blocks.iter().map(|block| block.index).collect();
        let (loose, unreadable) = self.shared.board.facts(|facts| (facts.loose(), facts.unreadable_assignments()));
        carve::residents(shape, &self.name, &there, &loose, &unreadable)
    }

    /// Makes blocks again that are gone and have residents, also of a pool that is draining: their addresses are in use.
    pub(super) async fn carve_again(
        &mut self,
        pool: &AddressPool,
        shape: &PoolShape,
        residents: &Residents,
        view: &mut PoolView,
    ) -> Result<(), TurnError> {
        if residents.again.is_empty() {
            return Ok(());
        }
        blocks::may_carve(&self.shared, pool).await?;
        let created = blocks::create_again(&self.shared, &self.name, shape, &residents.again).await?;
        self.remember_carved(created, view);
        Ok(())
    }

    fn remember_carved(&mut self, created: Vec<BlockFact>, view: &mut PoolView) {
        for block in created {
            view.blocks.push(block.clone());
            self.carved.insert(block.index, (block, Instant::now()));
        }
        view.blocks.sort_by_key(|block| block.index);
    }
}
