//! The blocks and attachments that the lock of [`NodeState`](super::NodeState) protects. Adds, changes and removes blocks. Pure: callers
//! pass the time.

use std::collections::{BTreeMap, HashMap};

use bobbin_crds::MAX_COOLDOWN;
use bobbin_ipam::reserved::Reserved;
use bobbin_ipam::{AttachmentKey, BootTime, IpPair};

use super::block::{BlockEvent, BlockState, Next};
use super::block_entry::{BlockEntry, BlockView, CheckpointedBlock, KnownBlock, NewBlock};
use super::{Attachment, ConflictingAssignment};
use crate::cluster::freshness::Proof;

/// Blocks and attachments. Invariant: a block's allocator counts an address as in use exactly while an attachment has the address.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) blocks: BTreeMap<String, BlockEntry>,
    pub(super) attachments: HashMap<AttachmentKey, Attachment>,
    /// The cool-downs of addresses whose block is unknown.
    pub(super) cooling: HashMap<IpPair, BootTime>,
    /// The reserved addresses of each pool, as the agent last read them.
    reserved: HashMap<String, Reserved>,
    /// The addresses excluded from allocation, whether their block is known or not.
    pub(super) conflicts: HashMap<IpPair, ConflictingAssignment>,
    /// The epoch of the block that was added last. Each added block gets a higher epoch than all earlier blocks, so a block that is claimed
    /// again never repeats an epoch.
    epochs: u64,
}

impl Inventory {
    fn next_epoch(&mut self) -> u64 {
        self.epochs += 1 << 32;
        self.epochs
    }

    /// Records that the agent is about to claim a block. Returns false if the node's state already has the block.
    pub(super) fn begin_claim(&mut self, name: &str, pool: &str, now: BootTime) -> bool {
        if self.blocks.contains_key(name) {
            return false;
        }
        let epoch = self.next_epoch();
        self.blocks.insert(name.to_owned(), BlockEntry::claiming(pool, epoch, now));
        true
    }

    /// Adds a block after the API server confirmed the block's claim or showed this node as the block's owner. Returns false if the node's
    /// state already has the block in a state other than `claiming`.
    pub(super) fn add_block(&mut self, mut block: NewBlock) -> bool {
        let claiming = match self.blocks.get(&block.held.name).map(BlockEntry::state) {
            None => BlockState::CLAIMING,
            Some(claiming @ BlockState::Claiming { .. }) => claiming,
            Some(_) => return false,
        };
        let event = BlockEvent::ClaimConfirmed { now: block.now, not_before: block.not_before };
        let Next::State(state) = claiming.on(event) else { return false };
        // The caller may have read the reserved addresses from an older version of the pool, so use the reserved addresses that the agent
        // read last.
        if let Some(reserved) = self.reserved.get(&block.held.pool) {
            block.reserved = reserved.clone();
        }
        let since = Some(block.now);
        self.insert(KnownBlock::new(block), state, since);
        true
    }

    /// Adds a block from the checkpoint, after a restart of the agent.
    pub(super) fn restore_block(&mut self, block: NewBlock, state: BlockState, since: Option<BootTime>) {
        self.insert(KnownBlock::new(block), state, since);
    }

    fn insert(&mut self, mut known: KnownBlock, state: BlockState, since: Option<BootTime>) {
        for attachment in self.attachments.values_mut() {
            if let Some(offset) = known.offset_of(attachment.pair) {
                known.hold(offset);
                attachment.block.clone_from(&known.held.name);
                attachment.pool.clone_from(&known.held.pool);
            }
        }
        let epoch = self.next_epoch();
        self.blocks.insert(known.held.name.clone(), BlockEntry::claimed(known, state, epoch, since));
        for (pair, since) in std::mem::take(&mut self.cooling) {
            self.cool_one(pair, since);
        }
        for conflict in self.conflicts() {
            self.exclude(conflict);
        }
    }

    /// Applies an event to a block. Returns true if the block's state changed or the block was forgotten.
    pub(super) fn on(&mut self, name: &str, event: BlockEvent, now: BootTime) -> bool {
        let Some(block) = self.blocks.get_mut(name) else { return false };
        if let Some(changed) = block.on(event, now) {
            return changed;
        }
        let forgotten = self.blocks.remove(name).and_then(|block| block.known);
        // Drop the cool-downs of a released block. Its next owner computes the cool-down from the release time in the API object.
        if event != BlockEvent::Released {
            self.keep_cooling(forgotten);
        }
        true
    }

    /// Keeps the cool-downs of a forgotten block, because this node may own the block again later.
    fn keep_cooling(&mut self, forgotten: Option<KnownBlock>) {
        let Some(known) = forgotten else { return };
        for (offset, since) in known.allocator.cooling_addresses() {
            self.cooling.extend(known.held.range.pair(offset).map(|pair| (pair, since)));
        }
        let newest = self.cooling.values().max().copied().unwrap_or_default();
        self.cooling.retain(|_, since| newest.since(*since) < MAX_COOLDOWN);
    }

    /// Applies [`BlockEvent::Release`] if no address of the block is in use.
    pub(super) fn begin_release(&mut self, name: &str, now: BootTime) -> bool {
        self.residents(name) == Some(0) && self.on(name, BlockEvent::Release, now)
    }

    /// Applies [`BlockEvent::FoundOwned`] and [`BlockEvent::Release`] to a doubted block if no address of the block is in use.
    pub(super) fn release_doubted(&mut self, name: &str, now: BootTime) -> bool {
        let Some(BlockState::Doubted { doubts, .. }) = self.blocks.get(name).map(BlockEntry::state) else {
            return false;
        };
        self.residents(name) == Some(0)
            && self.on(name, BlockEvent::FoundOwned { now, doubts }, now)
            && self.on(name, BlockEvent::Release, now)
    }

    /// Applies [`BlockEvent::FoundFree`] if no address of the block is in use.
    pub(super) fn found_free(&mut self, name: &str, now: BootTime) -> bool {
        self.residents(name) == Some(0) && self.on(name, BlockEvent::FoundFree, now)
    }

    /// Marks a block as lost, because another node owns the block. Returns this node's attachments that have addresses of the block. If
    /// there are none, forgets the block.
    pub(super) fn found_foreign(&mut self, name: &str, now: BootTime) -> Vec<Attachment> {
        self.on(name, BlockEvent::FoundForeign, now);
        let residents = self.residents_of(name);
        if residents.is_empty() {
            self.on(name, BlockEvent::Vacated, now);
        }
        residents
    }

    pub(super) fn residents(&self, name: &str) -> Option<u32> {
        self.blocks.get(name).map(BlockEntry::residents)
    }

    /// This node's attachments that have addresses of a block.
    pub(super) fn residents_of(&self, name: &str) -> Vec<Attachment> {
        let Some(known) = self.blocks.get(name).and_then(|block| block.known.as_ref()) else { return Vec::new() };
        self.attachments.values().filter(|attachment| known.offset_of(attachment.pair).is_some()).cloned().collect()
    }

    /// Looks at the blocks in their order, and cancels the first release that can still be cancelled. Returns false if there is none.
    pub(super) fn cancel_release(&mut self, names: &[String], now: BootTime, not_before: BootTime) -> bool {
        names.iter().any(|name| self.on(name, BlockEvent::ReleaseCancelled { now, not_before }, now))
    }

    pub(super) fn doubt_all(&mut self, now: BootTime) -> bool {
        let names: Vec<String> = self.blocks.keys().cloned().collect();
        let mut changed = false;
        for name in names {
            changed |= self.on(&name, BlockEvent::Doubt, now);
        }
        changed
    }

    /// Updates a block from its API object. Returns true if the UID or the deletion mark changed.
    pub(super) fn refresh(&mut self, name: &str, uid: &str, resource_version: &str, deleting: bool) -> bool {
        let Some(known) = self.blocks.get_mut(name).and_then(|block| block.known.as_mut()) else { return false };
        let changed = known.held.deleting != deleting || known.held.uid != uid;
        uid.clone_into(&mut known.held.uid);
        resource_version.clone_into(&mut known.held.resource_version);
        known.held.deleting = deleting;
        changed
    }

    /// Records the API server's confirmation that this node owns a block. If the agent must list the block's assignments first, the
    /// confirmation has an effect only if `assignments_listed` is true.
    pub(super) fn prove(&mut self, name: &str, proof: Proof, assignments_listed: bool) {
        if let Some(known) = self.blocks.get_mut(name).and_then(|block| block.known.as_mut()) {
            known.proof = known.proof.confirmed(proof, assignments_listed);
        }
    }

    /// Sets the reserved addresses of a pool. Returns true if they changed.
    pub(super) fn set_reserved(&mut self, pool: &str, reserved: &Reserved) -> bool {
        if self.reserved.get(pool) == Some(reserved) {
            return false;
        }
        self.reserved.insert(pool.to_owned(), reserved.clone());
        for known in self.blocks.values_mut().filter_map(|block| block.known.as_mut()) {
            if known.held.pool == pool {
                known.allocator.set_reserved(reserved);
            }
        }
        true
    }

    pub(super) fn views(&self) -> Vec<BlockView> {
        self.blocks.values().filter_map(BlockEntry::view).collect()
    }

    /// Returns the blocks for the checkpoint, each in the state that it would have after the events in `promotions`. Does not apply the
    /// events, because the checkpoint must be written first.
    pub(super) fn checkpoint_with(&self, promotions: &[(String, BlockEvent)]) -> Vec<CheckpointedBlock> {
        let state = |view: &BlockView| {
            let mut of_this = promotions.iter().filter(|(name, _)| *name == view.held.name);
            of_this.try_fold(view.state, |state, (_, event)| match state.on(*event) {
                Next::State(next) => Some(next),
                Next::Unchanged => Some(state),
                Next::Forgotten => None,
            })
        };
        let saved = |view: BlockView| {
            let assignments_listed = view.proof != Proof::AssignmentsUnseen;
            let state = state(&view)?;
            let entry = self.blocks.get(&view.held.name);
            let since = entry.filter(|_| state == view.state).and_then(BlockEntry::since);
            Some(CheckpointedBlock { block: view.held, state, since, assignments_listed })
        };
        self.views().into_iter().filter_map(saved).collect()
    }
}
