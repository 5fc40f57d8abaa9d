//! How many blocks a node has of a pool, and how many free blocks the operator keeps carved.
//!
//! The agent asks [`decide`] whenever something changes. Claiming and giving back never follow from the same facts: a block
//! goes back only if without it no spare would be claimed, and a spare is claimed only if the pool has more than one free
//! block, so that the claim itself does not run it out. Where many nodes run a pool out together they give their spares
//! back, and each leaves it at that for `block_idle`.

use std::time::Duration;

use crate::block::BlockName;

/// How long a block that was claimed for a pod may stay empty in an exhausted pool before it goes back: the time from the
/// claim to the ADD that asked for it.
pub const FIRST_USE: Duration = Duration::from_secs(3);

/// One block of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUse {
    /// The block's name.
    pub name: BlockName,
    /// Addresses that attachments hold.
    pub held: u32,
    /// Usable addresses that rest and may not go out yet.
    pub cooling: u32,
    /// Addresses to hand out at all: all but the reserved and the retired.
    pub usable: u32,
    /// How long no address of it has been held, counted from the claim at the earliest; `None` while one is.
    pub empty_for: Option<Duration>,
    /// An address of it was held since the claim.
    pub was_used: bool,
}

/// What the decision needs to know of one pool on this node.
#[allow(clippy::struct_excessive_bools, reason = "facts, each of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The node's blocks of the pool.
    pub blocks: Vec<BlockUse>,
    /// ADDs that wait for an address, and pods on their way to this node that will want one soon.
    pub waiting: u32,
    /// Claims that are under way.
    pub claiming: u32,
    /// How many pairs a block of the pool has.
    pub block_len: u32,
    /// Blocks of the pool that no node has claimed, as its status says.
    pub free_blocks: u64,
    /// The pool's condition `Exhausted` is true.
    pub exhausted: bool,
    /// `spec.draining`.
    pub draining: bool,
    /// The pool is being deleted.
    pub deleting: bool,
    /// New blocks may be claimed: the pool is ready and its `nodeSelector` admits the node.
    pub claimable: bool,
    /// `spec.maxBlocksPerNode`.
    pub max_blocks: Option<u32>,
    /// `--block-idle`.
    pub block_idle: Duration,
    /// How long ago the node last gave a block back because the pool was exhausted.
    pub gave_back_for_others: Option<Duration>,
}

/// What the agent is to do now. Never both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDemand {
    /// How many more blocks to claim, apart from claims under way.
    pub claim: u32,
    /// The blocks to give back, in this order.
    pub give_back: Vec<BlockName>,
}

/// Decides for one pool on this node.
///
/// A claim that pods wait for is tried even if the status says that no block is free, for the status may be late: the
/// caller spaces out the tries.
pub fn decide(pool: &PoolUse) -> BlockDemand {
    let claim = claims(pool);
    if claim > 0 {
        return BlockDemand { claim, give_back: Vec::new() };
    }
    BlockDemand { claim: 0, give_back: give_backs(pool) }
}

/// No new addresses come from the pool.
fn is_closing(pool: &PoolUse) -> bool {
    pool.draining || pool.deleting
}

/// The pool has nothing left for others.
fn is_run_out(pool: &PoolUse) -> bool {
    pool.exhausted || pool.free_blocks == 0
}

fn claims(pool: &PoolUse) -> u32 {
    if is_closing(pool) || !pool.claimable {
        return 0;
    }
    let have = count(&pool.blocks).saturating_add(pool.claiming);
    let room = pool.max_blocks.map_or(u32::MAX, |most| most.saturating_sub(have));
    let demanded = demanded(pool);
    let wanted = if spare_is_due(pool, demanded) { demanded.saturating_add(1) } else { demanded };
    wanted.saturating_sub(pool.claiming).min(room)
}

/// Blocks for those that wait and that the addresses at hand don't serve; claims under way count.
fn demanded(pool: &PoolUse) -> u32 {
    let at_hand: u32 = pool.blocks.iter().map(free).fold(0, u32::saturating_add);
    pool.waiting.saturating_sub(at_hand).div_ceil(pool.block_len.max(1))
}

fn free(block: &BlockUse) -> u32 {
    block.usable.saturating_sub(block.held).saturating_sub(block.cooling)
}

/// Whether a spare is wanted and the pool can spare one. `more` blocks are, or will be, on their way.
fn spare_is_due(pool: &PoolUse, more: u32) -> bool {
    let recently = pool.gave_back_for_others.is_some_and(|ago| ago < pool.block_idle);
    let left_for_others = pool.free_blocks > u64::from(more).saturating_add(1);
    !is_run_out(pool) && left_for_others && !recently && wants_spare(pool, pool.blocks.iter(), more)
}

/// Whether held, cooling and waiting are 75 % or more of these blocks and `more` empty ones, and less than a block's worth is free.
fn wants_spare<'a>(pool: &PoolUse, blocks: impl Iterator<Item = &'a BlockUse>, more: u32) -> bool {
    let mut used = u64::from(pool.waiting);
    let mut usable = u64::from(more) * u64::from(pool.block_len);
    let mut any = more > 0;
    for block in blocks {
        any = true;
        used += u64::from(block.held) + u64::from(block.cooling);
        usable += u64::from(block.usable);
    }
    any && used > 0 && used * 4 >= usable * 3 && usable.saturating_sub(used) < u64::from(pool.block_len)
}

fn give_backs(pool: &PoolUse) -> Vec<BlockName> {
    let mut empty: Vec<(&BlockUse, Duration)> =
        pool.blocks.iter().filter_map(|block| block.empty_for.map(|time| (block, time))).collect();
    empty.sort_by(|(a, a_empty), (b, b_empty)| b_empty.cmp(a_empty).then_with(|| a.name.cmp(&b.name)));
    if is_closing(pool) {
        return empty.into_iter().map(|(block, _)| block.name.clone()).collect();
    }
    if pool.waiting > 0 || pool.claiming > 0 {
        return Vec::new();
    }
    if is_run_out(pool) {
        let due = |block: &BlockUse, time| block.was_used || time >= FIRST_USE;
        return empty
            .into_iter()
            .filter(|(block, time)| due(block, *time))
            .map(|(block, _)| block.name.clone())
            .collect();
    }
    idle(pool, &empty)
}

/// The blocks that are empty for long, but the last block and what would be claimed again as a spare.
fn idle(pool: &PoolUse, longest_empty_first: &[(&BlockUse, Duration)]) -> Vec<BlockName> {
    let mut kept: Vec<&BlockUse> = pool.blocks.iter().collect();
    let mut back = Vec::new();
    for (block, time) in longest_empty_first {
        let rest = || kept.iter().copied().filter(|other| other.name != block.name);
        if *time >= pool.block_idle && kept.len() > 1 && !wants_spare(pool, rest(), 0) {
            kept.retain(|other| other.name != block.name);
            back.push(block.name.clone());
        }
    }
    back
}

fn count(blocks: &[BlockUse]) -> u32 {
    u32::try_from(blocks.len()).unwrap_or(u32::MAX)
}

/// How many free blocks the operator keeps carved: six for each node and a few more, so that of nodes which claim at once 2 in
/// 1000 lose three races, and no more than the pool has.
pub fn free_block_target(nodes: u64, claimed: u64, total: u64) -> u64 {
    nodes.saturating_mul(6).saturating_add(8).min(total.saturating_sub(claimed))
}

#[cfg(test)]
mod tests;
