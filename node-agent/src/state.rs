//! The agent's memory of this node's blocks, addresses and attachments, behind one lock. [`NodeState`] does no IO, and no caller holds the
//! lock across an await.

mod addresses;
mod allocation;
pub(crate) mod atomic_file;
mod attachment;
mod block;
mod block_entry;
pub(crate) mod checkpoint;
pub(crate) mod exclusion;
mod inventory;
pub(crate) mod layout;
mod proof;
pub(crate) mod restore;
mod snapshot;

use std::time::Duration;

use bobbin_ipam::block::BlockRange;
use bobbin_ipam::demand::BlockUse;
use bobbin_ipam::reserved::Reserved;
use bobbin_ipam::{AttachmentKey, BootTime, IpPair};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use allocation::{Allocation, AllocationRequest, AssignError, ConflictingAssignment, CoolingAddress, FencingToken};
pub use attachment::{Attachment, AttachmentId, AttachmentPhase, Links, PodRef, first_names};
pub use block::{BlockEvent, BlockState, Next, ReleaseStage, SettledState};
pub use block_entry::{BlockView, CheckpointedBlock, ClaimedBlock, NewBlock};
use inventory::Inventory;
pub use snapshot::{BlockSnapshot, StateSnapshot};

use crate::cluster::freshness::Proof;

/// The node's state. Callers share it by reference. Every method takes the lock and returns without waiting for IO.
#[derive(Debug)]
pub struct NodeState {
    inventory: Mutex<Inventory>,
    changed: watch::Sender<u64>,
}

impl Default for NodeState {
    fn default() -> Self {
        Self { inventory: Mutex::default(), changed: watch::channel(0).0 }
    }
}

impl NodeState {
    /// Creates a state without blocks and attachments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that the agent is about to claim a block. If the node's state already has the block, returns false, and the agent must not
    /// claim the block.
    pub fn begin_claim(&self, block: &str, pool: &str) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|inventory| inventory.begin_claim(block, pool, now))
    }

    /// Adds a block after the API server confirmed that this node owns it. An address of the block counts as in use if an attachment has
    /// that address. Returns false and changes nothing if the node's state already has the block in a state other than `claiming`.
    pub fn add_block(&self, block: NewBlock) -> bool {
        self.change(|inventory| inventory.add_block(block))
    }

    /// Adds a block from the checkpoint. The block entered its state at `since`, if known.
    pub fn restore_block(&self, block: NewBlock, block_state: BlockState, since: Option<BootTime>) {
        self.write(|inventory| inventory.restore_block(block, block_state, since));
    }

    /// Applies an event to a block. Returns true if the block's state changed. An event that allows more allocations may be applied only after
    /// the checkpoint has the new state. So only the checkpoint's writer may apply such an event.
    pub fn on(&self, block: &str, event: BlockEvent) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|inventory| inventory.on(block, event, now))
    }

    /// Marks every block that this node owns as doubted.
    pub fn doubt_all(&self) {
        let now = bobbin_datapath::boot_time();
        self.change(|inventory| inventory.doubt_all(now));
    }

    /// Starts to release a block. Returns false if one of the block's addresses is in use, or if the block's state does not allow a
    /// release.
    pub fn begin_release(&self, block: &str) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|inventory| inventory.begin_release(block, now))
    }

    /// Cancels the release of one of these blocks: the first release that the agent has not sent to the API server yet. The node allocates
    /// no addresses from that block before `not_before`. Returns false if no release could be cancelled.
    pub fn cancel_release(&self, blocks: &[String], now: BootTime, not_before: BootTime) -> bool {
        self.change(|inventory| inventory.cancel_release(blocks, now, not_before))
    }

    /// Starts to release a doubted block after a read showed that this node owns the block. The agent does this if its Node object was
    /// deleted or is out of service. Returns false if one of the block's addresses is in use, or if the block is not doubted.
    pub fn release_doubted(&self, block: &str) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|inventory| inventory.release_doubted(block, now))
    }

    /// Forgets a doubted block because no node owns it. Returns false if one of the block's addresses is in use, or if the block is not
    /// doubted.
    pub fn found_free(&self, block: &str) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|inventory| inventory.found_free(block, now))
    }

    /// Records that another node owns a doubted block. Returns this node's attachments that still have addresses of the block.
    pub fn found_foreign(&self, block: &str) -> Vec<Attachment> {
        let now = bobbin_datapath::boot_time();
        self.write(|inventory| inventory.found_foreign(block, now))
    }

    /// Updates a block's UID, resourceVersion and deletion mark from its API object.
    pub fn refresh(&self, block: &str, uid: &str, resource_version: &str, deleting: bool) {
        self.change(|inventory| inventory.refresh(block, uid, resource_version, deleting));
    }

    /// Records that other nodes may have assignments in the block of this address. The next resync lists the block's assignments.
    pub fn forget_assignments_listed(&self, pair: IpPair) {
        self.inventory.lock().forget_assignments_listed(pair);
    }

    /// Records the API server's confirmation that this node owns a block. `assignments_listed` says whether the agent has listed the
    /// block's assignments.
    pub fn prove(&self, block: &str, proof: Proof, assignments_listed: bool) {
        self.inventory.lock().prove(block, proof, assignments_listed);
    }

    /// All blocks of the node, except blocks whose first claim has no answer yet.
    pub fn blocks(&self) -> Vec<BlockView> {
        self.read(Inventory::views)
    }

    /// The block with this name.
    pub fn block(&self, name: &str) -> Option<BlockView> {
        self.read(|inventory| inventory.blocks.get(name)?.view())
    }

    /// The state of a block. Returns `None` if the block is unknown.
    pub fn block_state(&self, name: &str) -> Option<BlockState> {
        self.read(|inventory| inventory.blocks.get(name).map(block_entry::BlockEntry::state))
    }

    /// The number of a pool's blocks that count as owned by this node. A block whose claim has no answer yet counts, too.
    pub fn block_count(&self, pool: &str) -> usize {
        let owned = |block: &&block_entry::BlockEntry| block.pool == pool && block.state().counts_as_ours();
        self.read(|inventory| inventory.blocks.values().filter(owned).count())
    }

    /// The number of a pool's blocks that this node is claiming or exporting. A block in one of these two states soon enters service.
    pub fn blocks_coming(&self, pool: &str) -> usize {
        self.count_blocks(pool, |state| matches!(state, BlockState::Claiming { .. } | BlockState::Exporting { .. }))
    }

    /// The number of a pool's blocks that this node is releasing.
    pub fn blocks_releasing(&self, pool: &str) -> usize {
        self.count_blocks(pool, |state| matches!(state, BlockState::Releasing { .. }))
    }

    fn count_blocks(&self, pool: &str, counts: impl Fn(BlockState) -> bool) -> usize {
        let counted = |block: &&block_entry::BlockEntry| block.pool == pool && counts(block.state());
        self.read(|inventory| inventory.blocks.values().filter(counted).count())
    }

    /// This node's attachments that have addresses of a block.
    pub fn residents(&self, block: &str) -> Vec<Attachment> {
        self.read(|inventory| inventory.residents_of(block))
    }

    /// The ranges of the blocks whose routes should be in the kernel.
    pub fn exported(&self) -> Vec<BlockRange> {
        self.blocks().into_iter().filter(|block| block.state.exported()).map(|block| block.held.range).collect()
    }

    /// Returns the blocks for the checkpoint, each in the state that it would have after the events in `promotions`. Does not apply the
    /// events, because the checkpoint must be written first.
    pub fn checkpoint_with(&self, promotions: &[(String, BlockEvent)]) -> Vec<CheckpointedBlock> {
        self.read(|inventory| inventory.checkpoint_with(promotions))
    }

    /// Sets the addresses that a pool reserves.
    pub fn set_reserved(&self, pool: &str, reserved: &Reserved) {
        self.change(|inventory| inventory.set_reserved(pool, reserved));
    }

    /// Allocates an address that was never used or has cooled down, from the fullest block that has such an address.
    pub fn assign(&self, request: &AllocationRequest<'_>, now: BootTime) -> Result<Allocation, AssignError> {
        self.try_write(|inventory| inventory.assign(request, now, false))
    }

    /// Allocates the address that has been cooling down longest, although its cool-down has not ended. An ADD takes such an address only if
    /// the node can get no other address.
    pub fn assign_early(&self, request: &AllocationRequest<'_>, now: BootTime) -> Result<Allocation, AssignError> {
        self.try_write(|inventory| inventory.assign(request, now, true))
    }

    /// Whether the token is still valid. A token becomes invalid when its block becomes doubted, is lost or is replaced.
    pub fn token_is_current(&self, token: &FencingToken) -> bool {
        self.read(|inventory| inventory.token_is_current(token))
    }

    /// Adds an attachment that the agent found in the checkpoint or in the kernel after a restart. The attachment's address is then in use.
    pub fn restore_attachment(&self, attachment: Attachment) {
        self.write(|inventory| inventory.restore_attachment(attachment));
    }

    /// Changes an attachment, except its key and address. Returns `None` if there is no such attachment.
    pub fn update(&self, key: &AttachmentKey, change: impl FnOnce(&mut Attachment)) -> Option<Attachment> {
        self.write(|inventory| {
            let attachment = inventory.attachments.get_mut(key)?;
            let pair = attachment.pair;
            change(attachment);
            attachment.pair = pair;
            Some(attachment.clone())
        })
    }

    /// Removes an attachment. Its address cools down from `now` on. Returns `None` and changes nothing if there is no such attachment.
    pub fn release(&self, key: &AttachmentKey, now: BootTime) -> Option<Attachment> {
        self.write(|inventory| inventory.release(key, now))
    }

    /// The attachment with this key.
    pub fn attachment(&self, key: &AttachmentKey) -> Option<Attachment> {
        self.read(|inventory| inventory.attachments.get(key).cloned())
    }

    /// All attachments of the node.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.read(|inventory| inventory.attachments.values().cloned().collect())
    }

    /// The number of attachments on the node.
    pub fn attachment_count(&self) -> usize {
        self.read(|inventory| inventory.attachments.len())
    }

    /// Excludes the conflict's address from allocation, but only in memory. [`exclusion::exclude`] also writes the checkpoint. Returns true
    /// if the conflict is new.
    pub fn exclude(&self, conflict: ConflictingAssignment) -> bool {
        self.write(|inventory| inventory.exclude(conflict))
    }

    /// Ends the exclusion of an address, but only in memory. [`exclusion::end_exclusion`] also changes the checkpoint. Returns true if the
    /// address was excluded.
    pub fn end_exclusion(&self, pair: IpPair) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|inventory| inventory.end_exclusion(pair, now))
    }

    /// The conflicts whose addresses are excluded from allocation.
    pub fn conflicts(&self) -> Vec<ConflictingAssignment> {
        self.read(Inventory::conflicts)
    }

    /// For each in-service block of the pool, counts the used, cooling and usable addresses.
    pub fn pool_use(&self, pool: &str, cooldown: Duration) -> Vec<BlockUse> {
        let now = bobbin_datapath::boot_time();
        self.read(|inventory| inventory.pool_use(pool, cooldown, now))
    }

    /// All addresses that are cooling down.
    #[cfg(test)]
    pub fn cooling(&self) -> Vec<CoolingAddress> {
        self.read(Inventory::cooling)
    }

    /// Records when the cool-downs of free addresses began. If the block of an address is unknown, the node's state keeps the cool-down
    /// until the block is added.
    pub fn cool(&self, addresses: &[CoolingAddress]) {
        self.write(|inventory| inventory.cool(addresses));
    }

    /// A channel that receives a new count after each change of the node's state. Waiting ADDs, the demand controller and the checkpoint's
    /// writer watch this channel.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn read<T>(&self, read: impl FnOnce(&Inventory) -> T) -> T {
        read(&self.inventory.lock())
    }

    fn write<T>(&self, change: impl FnOnce(&mut Inventory) -> T) -> T {
        let result = change(&mut self.inventory.lock());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Changes the node's state as [`Self::write`] does, but notifies the receivers of [`Self::changed`] only if `change` returns true.
    fn change(&self, change: impl FnOnce(&mut Inventory) -> bool) -> bool {
        let changed = change(&mut self.inventory.lock());
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        changed
    }

    fn try_write<T, E>(&self, change: impl FnOnce(&mut Inventory) -> Result<T, E>) -> Result<T, E> {
        let result = change(&mut self.inventory.lock())?;
        self.changed.send_modify(|count| *count += 1);
        Ok(result)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
