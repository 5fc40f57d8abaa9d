//! Decides how many blocks a node claims or releases, and how many free blocks the operator keeps ready.
//!
//! A node claims one spare block ahead of demand, so that an ADD need not wait for a claim. So that a node never claims and
//! releases blocks alternately, it keeps a block that it would claim again as a spare. A node claims no spare if that takes
//! the pool's last free block. In an exhausted pool, it releases its spares and then claims no spare for `block_idle`.

use std::time::Duration;

use crate::block::BlockName;

/// How long a newly claimed block may stay empty before the node releases it in an exhausted pool. The ADD for which the node
/// claimed the block needs this time.
pub const FIRST_USE_TIMEOUT: Duration = Duration::from_secs(3);

/// How the node uses one of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUse {
    /// The block's name.
    pub name: BlockName,
    /// How many addresses of the block attachments hold.
    pub held: u32,
    /// How many usable addresses of the block cool down, so that the agent may not assign them yet.
    pub cooling: u32,
    /// How many addresses of the block are neither reserved nor excluded, so that the agent may assign them.
    pub usable: u32,
    /// How long the block has been empty since its claim. `None` while an attachment holds an address of the block.
    pub empty_for: Option<Duration>,
    /// Whether an attachment has held an address of the block since the claim.
    pub was_used: bool,
}

/// How the node uses one pool.
#[allow(clippy::struct_excessive_bools, reason = "independent flags")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The blocks of the pool that the node owns.
    pub blocks: Vec<BlockUse>,
    /// How many ADDs wait for an address, plus how many pods are scheduled to this node but not started.
    pub waiting: u32,
    /// How many claims of blocks of this pool are in flight.
    pub claiming: u32,
    /// The number of addresses (pairs) in a block of the pool.
    pub block_len: u32,
    /// How many blocks of the pool no node has claimed, according to the pool's status.
    pub free_blocks: u64,
    /// Whether the pool's condition `Exhausted` is true.
    pub exhausted: bool,
    /// Whether the pool is draining (`spec.draining`).
    pub draining: bool,
    /// Whether the pool is being deleted.
    pub deleting: bool,
    /// Whether the node may claim blocks: the pool is ready and its `nodeSelector` admits the node.
    pub claimable: bool,
    /// The largest number of blocks of the pool that the node may have; `None` if there is no limit.
    pub max_blocks: Option<u32>,
    /// How long a block may be empty before the node releases it (`--block-idle`).
    pub block_idle: Duration,
    /// How long ago the node last released a block because the pool was exhausted; `None` if it never did.
    pub released_for_others: Option<Duration>,
}

/// The blocks that the agent should now claim or release. A decision that claims blocks releases none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDemand {
    /// How many blocks to claim, in addition to the claims in flight.
    pub claim: u32,
    /// The blocks to release, in the order of their release.
    pub release: Vec<BlockName>,
}

/// Decides how many blocks of one pool this node claims, or which blocks it releases.
///
/// Waiting pods cause a claim even if the pool's status shows no free block, because the status may be late. The caller
/// limits how often the node tries such claims.
pub fn decide(pool: &PoolUse) -> BlockDemand {
    let claim = claims(pool);
    if claim > 0 {
        return BlockDemand { claim, release: Vec::new() };
    }
    BlockDemand { claim: 0, release: releases(pool) }
}

/// Whether the pool is draining or being deleted, so that no agent assigns an address of the pool.
fn is_closing(pool: &PoolUse) -> bool {
    pool.draining || pool.deleting
}

/// Whether the pool has no free block that another node could claim.
fn is_exhausted(pool: &PoolUse) -> bool {
    pool.exhausted || pool.free_blocks == 0
}

fn claims(pool: &PoolUse) -> u32 {
    if is_closing(pool) || !pool.claimable {
        return 0;
    }
    let have = count(&pool.blocks).saturating_add(pool.claiming);
    let room = pool.max_blocks.map_or(u32::MAX, |max| max.saturating_sub(have));
    let demanded = demanded(pool);
    let wanted = if spare_is_due(pool, demanded) { demanded.saturating_add(1) } else { demanded };
    wanted.saturating_sub(pool.claiming).min(room)
}

/// How many more blocks the node needs, because more pods wait than the node has free addresses. Claims in flight are not
/// subtracted.
fn demanded(pool: &PoolUse) -> u32 {
    let at_hand: u32 = pool.blocks.iter().map(free).fold(0, u32::saturating_add);
    pool.waiting.saturating_sub(at_hand).div_ceil(pool.block_len.max(1))
}

fn free(block: &BlockUse) -> u32 {
    block.usable.saturating_sub(block.held).saturating_sub(block.cooling)
}

/// Whether the node should claim a spare block and the pool has enough free blocks. `more` is how many blocks the node claims
/// for waiting pods.
fn spare_is_due(pool: &PoolUse, more: u32) -> bool {
    let recently = pool.released_for_others.is_some_and(|ago| ago < pool.block_idle);
    let left_for_others = pool.free_blocks > u64::from(more).saturating_add(1);
    !is_exhausted(pool) && left_for_others && !recently && wants_spare(pool, pool.blocks.iter(), more)
}

/// Whether at least 75 % of the addresses in `blocks` and in `more` empty blocks are held, cooling or wanted by waiting pods.
///
/// Returns false if at least one block's number of addresses is free, or if no address is held, cooling or wanted.
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

fn releases(pool: &PoolUse) -> Vec<BlockName> {
    let mut empty: Vec<(&BlockUse, Duration)> =
        pool.blocks.iter().filter_map(|block| block.empty_for.map(|time| (block, time))).collect();
    empty.sort_by(|(a, a_empty), (b, b_empty)| b_empty.cmp(a_empty).then_with(|| a.name.cmp(&b.name)));
    if is_closing(pool) {
        return empty.into_iter().map(|(block, _)| block.name.clone()).collect();
    }
    if pool.waiting > 0 || pool.claiming > 0 {
        return Vec::new();
    }
    if is_exhausted(pool) {
        let due = |block: &BlockUse, time| block.was_used || time >= FIRST_USE_TIMEOUT;
        return empty
            .into_iter()
            .filter(|(block, time)| due(block, *time))
            .map(|(block, _)| block.name.clone())
            .collect();
    }
    idle(pool, &empty)
}

/// The blocks to release because they have been empty for `block_idle`. The node always keeps one block, and keeps a
/// block that it would claim again as a spare.
fn idle(pool: &PoolUse, longest_empty_first: &[(&BlockUse, Duration)]) -> Vec<BlockName> {
    let mut kept: Vec<&BlockUse> = pool.blocks.iter().collect();
    let mut released = Vec::new();
    for (block, time) in longest_empty_first {
        let others = || kept.iter().copied().filter(|other| other.name != block.name);
        if *time >= pool.block_idle && kept.len() > 1 && !wants_spare(pool, others(), 0) {
            kept.retain(|other| other.name != block.name);
            released.push(block.name.clone());
        }
    }
    released
}

fn count(blocks: &[BlockUse]) -> u32 {
    u32::try_from(blocks.len()).unwrap_or(u32::MAX)
}

/// How many free blocks the operator keeps ready, at most as many as the pool has.
///
/// With six blocks per node and eight more, only 2 of 1000 nodes that claim at once lose three claim attempts.
pub fn free_block_target(nodes: u64, claimed: u64, total: u64) -> u64 {
    nodes.saturating_mul(6).saturating_add(8).min(total.saturating_sub(claimed))
}

#[cfg(test)]
mod tests;
