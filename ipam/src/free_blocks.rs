//! Decides how many free blocks the operator keeps in one pool.
//!
//! The target is the number of free blocks that the operator keeps. The target grows fast if nodes recently claimed
//! more blocks than are free. It falls after a whole period with less demand, but never below its floor. The
//! decision depends only on the observed numbers of free and claimed blocks, not on single claims.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The pool whose floor grows with the number of nodes, because most nodes need a block of this pool.
const DEFAULT_POOL: &str = "default";
/// The lowest floor of any pool.
const MIN_FREE_BLOCKS: u64 = 8;
/// The floor of the pool `default` contains this many free blocks for each admitted node without a block. If 1000 nodes
/// claim at once and six blocks per node are free, only 2 of the nodes lose three claims in a row.
const FLOOR_PER_NODE: u64 = 6;
/// If nodes recently claimed more blocks than are free, further nodes may be waiting for a block. So the target rises
/// to this many blocks per recent claim.
const GROWTH: u64 = 8;
/// A claim is recent if it is not older than this time.
const RECENT: Duration = Duration::from_secs(10);
/// The ceiling of the target contains one free block for this many admitted nodes without a block. The ceiling limits
/// the growth of the target after many claims.
const NODES_PER_FREE_BLOCK: u64 = 2;
/// The ceiling of the target also contains one free block for this many admitted nodes that have a block.
const OWNERS_PER_FREE_BLOCK: u64 = 4;
/// How long the operator observes the demand before it reduces the number of free blocks.
pub const DEMAND_PERIOD: Duration = Duration::from_secs(30);

/// The numbers of nodes and blocks of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStock {
    /// The number of admitted nodes that have no block of the pool.
    pub nodes_without_block: u64,
    /// The number of admitted nodes that have a block of the pool.
    pub nodes_with_block: u64,
    /// The number of blocks that nodes have claimed.
    pub claimed: u64,
    /// The number of free blocks, which nodes can claim now.
    pub free: u64,
    /// The number of free blocks that the operator may delete, because no node has ever claimed them.
    pub deletable: u64,
}

/// The numbers of free blocks that the operator creates and deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarvePlan {
    /// How many blocks to create.
    pub carve: u64,
    /// How many free blocks to delete.
    pub delete: u64,
    /// Even if nothing changes, the operator decides again after this time, because it may then delete blocks or lower
    /// the target. `None` if it can do neither.
    pub next: Option<Duration>,
}

/// The number of free blocks that one pool should have, and the demand in the current period.
#[derive(Clone, Debug)]
pub struct FreeBlockTarget {
    is_default: bool,
    target: u64,
    /// The changes of the number of claimed blocks within [`RECENT`]: each new number, with the time of the change. The
    /// first entry contains the number at the start of [`RECENT`].
    claimed: VecDeque<(Instant, u64)>,
    /// The lowest number of free blocks in the current period.
    lowest: u64,
    period_start: Instant,
}

impl FreeBlockTarget {
    /// Creates the target for a pool that was not observed before. The operator deletes no block within the first
    /// period.
    pub fn new(pool: &str, now: Instant) -> Self {
        Self {
            is_default: pool == DEFAULT_POOL,
            target: 0,
            claimed: VecDeque::new(),
            lowest: u64::MAX,
            period_start: now,
        }
    }

    /// The number of free blocks that the pool should have, as of the last call of [`Self::plan`].
    pub fn target(&self) -> u64 {
        self.target
    }

    /// Observes the pool and decides how many blocks to create or to delete.
    pub fn plan(&mut self, stock: &PoolStock, now: Instant) -> CarvePlan {
        let floor = self.floor(stock);
        // Only claims make the target grow. A free block that a user deleted does not.
        let recent = self.recent_claims(stock.claimed, now);
        if stock.free < recent {
            self.target = self.target.max(recent.saturating_mul(GROWTH));
            self.begin_period(now);
        }
        self.target = self.target.clamp(floor, ceiling(stock, floor));
        self.lowest = self.lowest.min(stock.free);
        let mut delete = 0;
        if now.duration_since(self.period_start) >= DEMAND_PERIOD {
            let most_consumed = self.target.saturating_sub(self.lowest);
            self.target = self.target.min(most_consumed.max(recent).saturating_mul(2).max(floor));
            delete = self.lowest.saturating_sub(self.target).min(stock.deletable);
            self.begin_period(now);
        }
        let carve = self.target.saturating_sub(stock.free);
        let excess = stock.free.saturating_sub(floor).min(stock.deletable) > delete;
        let left = DEMAND_PERIOD.saturating_sub(now.duration_since(self.period_start));
        CarvePlan { carve, delete, next: (excess || self.target > floor).then_some(left) }
    }

    /// The increase in the number of claimed blocks within [`RECENT`].
    fn recent_claims(&mut self, claimed: u64, now: Instant) -> u64 {
        if self.claimed.back().is_none_or(|(_, before)| *before != claimed) {
            self.claimed.push_back((now, claimed));
        }
        while self.claimed.get(1).is_some_and(|(when, _)| now.duration_since(*when) >= RECENT) {
            self.claimed.pop_front();
        }
        self.claimed.front().map_or(0, |(_, before)| claimed.saturating_sub(*before))
    }

    fn floor(&self, stock: &PoolStock) -> u64 {
        let per_node = if self.is_default { FLOOR_PER_NODE } else { 0 };
        stock.nodes_without_block.saturating_mul(per_node).max(MIN_FREE_BLOCKS)
    }

    fn begin_period(&mut self, now: Instant) {
        self.period_start = now;
        self.lowest = u64::MAX;
    }
}

/// The ceiling is the highest value that the target may have. The ceiling is never below the floor.
fn ceiling(stock: &PoolStock, floor: u64) -> u64 {
    let first_blocks = stock.nodes_without_block / NODES_PER_FREE_BLOCK;
    first_blocks.saturating_add(stock.nodes_with_block / OWNERS_PER_FREE_BLOCK).max(floor)
}

#[cfg(test)]
mod tests;
