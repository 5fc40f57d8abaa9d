//! One block in the ledger: its state, its addresses, and what the API server's word on it is worth. Pure.

use bobbin_ipam::block::BlockRange;
use bobbin_ipam::block_allocator::BlockAllocator;
use bobbin_ipam::reserved::Reserved;
use bobbin_ipam::{BootTime, IpPair};
use serde::{Deserialize, Serialize};

use super::block_state::{BlockEvent, BlockState, Next};
use crate::cluster::freshness::Proof;

/// A block that the API server has confirmed as this node's, as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlock {
    /// The object's name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion when it was last read or written.
    pub resource_version: String,
    /// The pool that it is of.
    pub pool: String,
    /// Its place in the pool.
    pub index: i64,
    /// Its addresses.
    pub range: BlockRange,
    /// When it was given back before this node claimed it.
    pub free_since: Option<jiff::Timestamp>,
    /// The object is being deleted.
    #[serde(default)]
    pub deleting: bool,
}

/// A block as it is written to the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBlock {
    /// The block.
    pub block: HeldBlock,
    /// Its state.
    pub state: BlockState,
    /// A list showed whether other attachments have records in it.
    #[serde(default)]
    pub records_seen: bool,
}

impl SavedBlock {
    /// What the API server's word on it is worth after a restart.
    #[must_use]
    pub fn proof(&self) -> Proof {
        if self.records_seen { Proof::None } else { Proof::AssignmentsUnseen }
    }
}

/// A block as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockView {
    /// The block.
    pub held: HeldBlock,
    /// Its state.
    pub state: BlockState,
    /// How many of its addresses attachments hold.
    pub residents: u32,
    /// What the API server's word on it is worth.
    pub proof: Proof,
    /// An address of it was in use since it was claimed, as far as is known.
    pub was_used: bool,
}

/// Everything the ledger knows of a block. `body` is absent only while its first claim is under way, when its range is not known yet.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) pool: String,
    state: BlockState,
    /// Grows when the state may have changed under a running ADD.
    epoch: u64,
    pub(super) body: Option<Body>,
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) held: HeldBlock,
    pub(super) allocator: BlockAllocator,
    pub(super) proof: Proof,
    pub(super) empty_since: Option<BootTime>,
    pub(super) was_used: bool,
}

impl Body {
    pub(super) fn new(
        held: HeldBlock,
        reserved: &Reserved,
        cooling_since: Option<BootTime>,
        proof: Proof,
        now: BootTime,
    ) -> Body {
        let allocator = BlockAllocator::new(held.range, reserved, cooling_since);
        Body { held, allocator, proof, empty_since: Some(now), was_used: false }
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

impl Block {
    /// A claim on it is about to be sent.
    pub(super) fn claiming(pool: &str, epoch: u64) -> Block {
        Block { pool: pool.to_owned(), state: BlockState::Claiming { doubted: false }, epoch, body: None }
    }

    /// A block that is known to be ours, in a state.
    pub(super) fn known(body: Body, state: BlockState, epoch: u64) -> Block {
        Block { pool: body.held.pool.clone(), state, epoch, body: Some(body) }
    }

    pub(super) fn state(&self) -> BlockState {
        self.state
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn residents(&self) -> u32 {
        self.body.as_ref().map_or(0, |body| body.allocator.held())
    }

    /// Applies an event; `None`: the block is to be forgotten. Otherwise whether the state changed.
    pub(super) fn on(&mut self, event: BlockEvent) -> Option<bool> {
        match self.state.on(event) {
            Next::Forgotten => None,
            Next::Unchanged => Some(false),
            Next::State(next) => {
                if next.revokes() {
                    self.epoch += 1;
                }
                if let Some(body) = &mut self.body {
                    match next {
                        // Another node may have residents in it by the time that it is ours again.
                        BlockState::Lost => body.proof = Proof::AssignmentsUnseen,
                        BlockState::Doubted { .. } if body.proof != Proof::AssignmentsUnseen => {
                            body.proof = Proof::None;
                        }
                        _ => {}
                    }
                }
                self.state = next;
                Some(true)
            }
        }
    }

    pub(super) fn view(&self) -> Option<BlockView> {
        let body = self.body.as_ref()?;
        Some(BlockView {
            held: body.held.clone(),
            state: self.state,
            residents: body.allocator.held(),
            proof: body.proof,
            was_used: body.was_used,
        })
    }
}
