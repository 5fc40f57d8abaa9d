//! A copy of the node's blocks and attachments at one moment, for the status document. Pure.

use std::time::Duration;

use bobbin_ipam::{BlockRange, BootTime};

use super::block_entry::BlockEntry;
use super::inventory::Inventory;
use super::{Attachment, BlockState, NodeState};
use crate::cluster::freshness::Proof;

/// The node's blocks and attachments at one moment.
#[derive(Clone, Debug, Default)]
pub struct StateSnapshot {
    /// All blocks, also those whose first claim has no answer yet.
    pub blocks: Vec<BlockSnapshot>,
    /// All attachments.
    pub attachments: Vec<Attachment>,
}

/// A block, and the number of its addresses in each state.
#[derive(Clone, Debug)]
pub struct BlockSnapshot {
    /// The name of the block.
    pub name: String,
    /// The pool of the block.
    pub pool: String,
    /// The block's addresses. `None` while the first claim has no answer.
    pub range: Option<BlockRange>,
    /// The block's state.
    pub state: BlockState,
    /// When the block entered its state, if the agent knows it.
    pub since: Option<BootTime>,
    /// The block's proof of ownership.
    pub proof: Proof,
    /// The number of addresses in use by attachments.
    pub assigned: u32,
    /// The number of free addresses that cool down.
    pub cooling: u32,
    /// The number of free addresses that do not cool down.
    pub free: u32,
}

impl NodeState {
    /// Copies all blocks and attachments under one lock. `cooldown` is called under the lock, so it must not take another lock.
    pub fn snapshot(&self, now: BootTime, cooldown: impl Fn(&str) -> Duration) -> StateSnapshot {
        self.read(|inventory| inventory.snapshot(now, cooldown))
    }
}

impl Inventory {
    fn snapshot(&self, now: BootTime, cooldown: impl Fn(&str) -> Duration) -> StateSnapshot {
        let block = |(name, entry): (&String, &BlockEntry)| {
            let known = entry.known.as_ref();
            let cooldown = cooldown(&entry.pool);
            let (assigned, cooling, usable) = known.map_or((0, 0, 0), |known| {
                let allocator = &known.allocator;
                (allocator.held(), allocator.cooling(now, cooldown), allocator.usable())
            });
            BlockSnapshot {
                name: name.clone(),
                pool: entry.pool.clone(),
                range: known.map(|known| known.held.range),
                state: entry.state(),
                since: entry.since(),
                proof: known.map_or(Proof::None, |known| known.proof),
                assigned,
                cooling,
                free: usable.saturating_sub(assigned).saturating_sub(cooling),
            }
        };
        let mut attachments: Vec<Attachment> = self.attachments.values().cloned().collect();
        attachments.sort_by(|one, other| one.created_at.cmp(&other.created_at).then_with(|| one.key.cmp(&other.key)));
        StateSnapshot { blocks: self.blocks.iter().map(block).collect(), attachments }
    }
}
