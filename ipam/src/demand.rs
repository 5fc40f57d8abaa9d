//! Decides how many blocks a node claims or releases.
//!
//! - A node claims one spare block before any pod needs the block, so that an ADD does not wait for a claim. The spare
//!   is never the pool's last free block.
//! - While the pool has free blocks, a node does not release a block that it would claim again as a spare.
//! - In an exhausted pool, a node releases its empty blocks, and then claims no spare block for the time `block_idle`.

use std::time::Duration;

use crate::block::BlockName;

/// In an exhausted pool, nodes release their empty blocks. A newly claimed block is exempt for this long, so that the ADD
/// that caused the claim can take an address of the block.
pub const FIRST_USE_TIMEOUT: Duration = Duration::from_secs(3);

/// How the node uses one of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUse {
    /// The block's name.
    pub name: BlockName,
    /// The number of addresses in the block that attachments hold.
    pub held: u32,
    /// The number of usable addresses in the block that are still cooling down. They do not count as free.
    pub cooling: u32,
    /// The number of addresses in the block that are neither reserved nor excluded. The agent may assign only these
    /// addresses.
    pub usable: u32,
    /// How long the block has been empty. The time begins at the claim, or when the last attachment released its
    /// address. `None` while an attachment holds an address of the block.
    pub empty_for: Option<Duration>,
    /// Whether an attachment has held an address of the block since the node claimed the block.
    pub was_used: bool,
}

/// How the node uses one pool.
#[allow(clippy::struct_excessive_bools, reason = "independent flags")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The blocks of the pool that the node owns.
    pub blocks: Vec<BlockUse>,
    /// The number of ADDs that are waiting for an address, plus the number of pods that are scheduled to this node but
    /// not started.
    pub waiting: u32,
    /// The number of claims in this pool that the node has started but not finished.
    pub claiming: u32,
    /// The number of addresses (pairs) in a block of the pool.
    pub block_len: u32,
    /// The number of free blocks in the pool, according to the pool's status.
    pub free_blocks: u64,
    /// Whether the pool's condition `Exhausted` is true.
    pub exhausted: bool,
    /// Whether the pool is draining (`spec.draining`).
    pub draining: bool,
    /// Whether the pool is being deleted.
    pub deleting: bool,
    /// Whether the node may claim blocks: the pool is ready and its `nodeSelector` admits the node.
    pub claimable: bool,
    /// The largest number of blocks that the node may have in this pool; `None` if there is no limit.
    pub max_blocks: Option<u32>,
    /// How long a block may be empty before the node releases it (`--block-idle`).
    pub block_idle: Duration,
    /// The time since the node last released a block because the pool was exhausted. `None` if the node never released
    /// a block for this reason.
    pub released_for_others: Option<Duration>,
}

/// The blocks that the agent should now claim or release. One decision never both claims and releases blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDemand {
    /// How many blocks to claim, in addition to the unfinished claims.
    pub claim: u32,
    /// The blocks to release, in the order of their release.
    pub release: Vec<BlockName>,
}

/// Decides how many blocks of one pool this node claims, or which blocks the node releases.
///
/// If pods wait for addresses, the node tries a claim even if the pool's status shows no free block. The status may be
/// outdated. The caller limits how often the node tries such claims.
pub fn decide(pool: &PoolUse) -> BlockDemand {
    let claim = claims(pool);
    if claim > 0 {
        return BlockDemand { claim, release: Vec::new() };
    }
    BlockDemand { claim: 0, release: releases(pool) }
}

/// Whether the pool is draining or being deleted. Agents assign no addresses of such a pool.
fn is_closing(pool: &PoolUse) -> bool {
    pool.draining || pool.deleting
}

/// Whether the pool has no free block. Other nodes may then need this node's empty blocks.
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

/// The number of additional blocks that the node needs for waiting pods; zero if the node has enough free addresses.
/// The number includes the blocks that the node is already claiming.
fn demanded(pool: &PoolUse) -> u32 {
    let at_hand: u32 = pool.blocks.iter().map(free).fold(0, u32::saturating_add);
    pool.waiting.saturating_sub(at_hand).div_ceil(pool.block_len.max(1))
}

fn free(block: &BlockUse) -> u32 {
    block.usable.saturating_sub(block.held).saturating_sub(block.cooling)
}

/// Whether the node needs a spare block and the pool has enough free blocks for a spare. `more` is the number of blocks
/// that the node claims for waiting pods.
fn spare_is_due(pool: &PoolUse, more: u32) -> bool {
    let recently = pool.released_for_others.is_some_and(|ago| ago < pool.block_idle);
    let left_for_others = pool.free_blocks > u64::from(more).saturating_add(1);
    !is_exhausted(pool) && left_for_others && !recently && wants_spare(pool, pool.blocks.iter(), more)
}

/// Whether the node needs a spare block in addition to `blocks` and to `more` empty blocks. A node needs a spare if at
/// least 75 % of its addresses are held, cooling or needed for waiting pods.
///
/// Returns false if the free addresses would fill a whole block. Also returns false if no address is held, cooling or
/// needed.
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

/// The blocks to release because they have been empty for `block_idle`. The node keeps at least one block, and any
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

#[cfg(test)]
mod tests;
