//! One block in the node's state: its state machine, its addresses and its proof of ownership. Pure.

use std::mem::discriminant;

use bobbin_ipam::block::BlockRange;
use bobbin_ipam::block_allocator::BlockAllocator;
use bobbin_ipam::reserved::Reserved;
use bobbin_ipam::{BootTime, IpPair};
use serde::{Deserialize, Serialize};

use super::block::{BlockEvent, BlockState, Next};
use crate::cluster::freshness::Proof;

/// A block, as the agent last read it. The API server has confirmed that this node claimed the block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedBlock {
    /// The name of the block object.
    pub name: String,
    /// The UID of the block object.
    pub uid: String,
    /// The block's resourceVersion after the agent's last read or write of the block.
    pub resource_version: String,
    /// The block's pool.
    pub pool: String,
    /// The block's index in its pool.
    pub index: i64,
    /// The block's addresses.
    pub range: BlockRange,
    /// The time at which the block's previous owner released the block, before this node claimed it.
    pub free_since: Option<jiff::Timestamp>,
    /// Whether the block object has a deletion timestamp.
    #[serde(default)]
    pub deleting: bool,
}

/// A block in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointedBlock {
    /// The block.
    pub block: ClaimedBlock,
    /// The block's state.
    pub state: BlockState,
    /// When the block entered the state, if known.
    #[serde(default)]
    pub since: Option<BootTime>,
    /// Whether the agent has listed the block's assignments. If true, the agent knows which of the block's addresses other attachments
    /// have.
    #[serde(default, alias = "records_seen")]
    pub assignments_listed: bool,
}

impl CheckpointedBlock {
    /// The block's proof of ownership after a restart of the agent.
    #[must_use]
    pub fn proof(&self) -> Proof {
        Proof::restored(self.assignments_listed)
    }

    /// The block's state after a restart of the agent at the time `now`, and when the block entered this state, if known. Returns `None` if
    /// the agent must forget the block. See [`BlockState::restored`] for `trusted`.
    #[must_use]
    pub fn restored(&self, trusted: bool, now: BootTime) -> Option<(BlockState, Option<BootTime>)> {
        let state = self.state.restored(trusted)?;
        let stays = discriminant(&state) == discriminant(&self.state);
        Some((state, if stays { self.since } else { Some(now) }))
    }
}

/// A block to add to the node's state.
#[derive(Clone, Debug)]
pub struct NewBlock {
    /// The block, as it is at the API server.
    pub held: ClaimedBlock,
    /// When the cool-down of the block's addresses began. `None` if the cool-down has ended.
    pub cooling_since: Option<BootTime>,
    /// The reserved addresses of the block's pool, as far as the caller knows.
    pub reserved: Reserved,
    /// The block's proof of ownership.
    pub proof: Proof,
    /// The current time.
    pub now: BootTime,
    /// The earliest moment at which the block may enter service.
    pub not_before: BootTime,
    /// Whether pods of this node may have used addresses of the block since the node claimed the block.
    pub was_used: bool,
}

/// A copy of the data that the node's state has about a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockView {
    /// The block.
    pub held: ClaimedBlock,
    /// The block's state.
    pub state: BlockState,
    /// How many addresses of the block are in use by attachments.
    pub residents: u32,
    /// The block's proof of ownership.
    pub proof: Proof,
    /// Whether an address of the block may have been in use since the node claimed the block.
    pub was_used: bool,
}

/// All data that the node has about a block. `known` is `None` only during the block's first claim, while the agent does not know the
/// block's range.
#[derive(Debug)]
pub(super) struct BlockEntry {
    pub(super) pool: String,
    state: BlockState,
    /// When the block entered its state. `None` if the checkpoint of a restored block lacked this time. The next change of the state sets
    /// this field.
    since: Option<BootTime>,
    /// The block's epoch. The epoch grows when the block enters a state that revokes earlier allocations (see [`BlockState::revokes`]).
    epoch: u64,
    pub(super) known: Option<KnownBlock>,
}

/// The addresses of a block whose range is known.
#[derive(Debug)]
pub(super) struct KnownBlock {
    pub(super) held: ClaimedBlock,
    pub(super) allocator: BlockAllocator,
    pub(super) proof: Proof,
    pub(super) empty_since: Option<BootTime>,
    pub(super) was_used: bool,
}

impl KnownBlock {
    pub(super) fn new(block: NewBlock) -> KnownBlock {
        let NewBlock { held, cooling_since, reserved, proof, now, was_used, .. } = block;
        let allocator = BlockAllocator::new(held.range, &reserved, cooling_since);
        KnownBlock { held, allocator, proof, empty_since: Some(now), was_used }
    }

    pub(super) fn offset_of(&self, pair: IpPair) -> Option<u32> {
        pair.addresses().find_map(|address| self.held.range.offset_of(address))
    }

    pub(super) fn hold(&mut self, offset: u32) {
        self.allocator.hold(offset);
        self.empty_since = None;
        self.was_used = true;
    }

    pub(super) fn free(&mut self, offset: u32, now: BootTime) {
        self.allocator.free(offset, now);
        if self.allocator.is_empty() {
            self.empty_since = Some(now);
        }
    }
}

impl BlockEntry {
    /// Creates the entry of a block that the agent is about to claim.
    pub(super) fn claiming(pool: &str, epoch: u64, now: BootTime) -> BlockEntry {
        BlockEntry { pool: pool.to_owned(), state: BlockState::CLAIMING, since: Some(now), epoch, known: None }
    }

    /// Creates the entry of a block that the node has claimed. `since` is when the block entered the state, if known.
    pub(super) fn claimed(known: KnownBlock, state: BlockState, epoch: u64, since: Option<BootTime>) -> BlockEntry {
        BlockEntry { pool: known.held.pool.clone(), state, since, epoch, known: Some(known) }
    }

    pub(super) fn state(&self) -> BlockState {
        self.state
    }

    pub(super) fn since(&self) -> Option<BootTime> {
        self.since
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn residents(&self) -> u32 {
        self.known.as_ref().map_or(0, |known| known.allocator.held())
    }

    /// Applies an event to the block. Returns true if the block's state changed, and `None` if the agent must forget the block.
    pub(super) fn on(&mut self, event: BlockEvent, now: BootTime) -> Option<bool> {
        match self.state.on(event) {
            Next::Forgotten => None,
            Next::Unchanged => Some(false),
            Next::State(next) => {
                if next.revokes() {
                    self.epoch += 1;
                }
                if let Some(known) = &mut self.known {
                    known.proof = known.proof.after(next);
                }
                // If the block only gets a further doubt, or enters the next step of its release, it stays in the same state. Then keep
                // `since`.
                if discriminant(&self.state) != discriminant(&next) {
                    self.since = Some(now);
                }
                self.state = next;
                Some(true)
            }
        }
    }

    pub(super) fn view(&self) -> Option<BlockView> {
        let known = self.known.as_ref()?;
        Some(BlockView {
            held: known.held.clone(),
            state: self.state,
            residents: known.allocator.held(),
            proof: known.proof,
            was_used: known.was_used,
        })
    }
}
