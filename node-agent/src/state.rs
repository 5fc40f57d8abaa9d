//! The one owner of this node's blocks, addresses and attachments. Verbs assign and release, claim and stock add and give back
//! blocks; it never does IO, and its lock is never held across an await.

pub(crate) mod atomic_file;
mod attachment;
mod block;
mod block_state;
pub(crate) mod checkpoint;
pub(crate) mod restore;
mod tables;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_ipam::block::BlockRange;
use bobbin_ipam::demand::BlockUse;
use bobbin_ipam::reserved::Reserved;
use bobbin_ipam::{AttachmentKey, BootTime, IpPair};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use attachment::{Attachment, Links, Phase, PodRef, first_names};
pub use block::{BlockView, HeldBlock, SavedBlock};
pub use block_state::{BlockEvent, BlockState, Release};
pub use tables::Arrival;
use tables::State;

use crate::cluster::freshness::Proof;

/// What an ADD asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The attachment.
    pub key: &'a AttachmentKey,
    /// The pod, as far as the runtime named it.
    pub pod: &'a PodRef,
    /// Whether the API server showed this agent a pod of that UID.
    pub pod_seen: bool,
    /// The pool that was chosen.
    pub pool: &'a str,
    /// How long a freed address of the pool cools.
    pub cooldown: Duration,
    /// This boot.
    pub boot_id: &'a str,
    /// The container's network namespace, as the runtime named it.
    pub netns: Option<&'a str>,
    /// The name of the CNI network that the ADD was for.
    pub network: Option<&'a str>,
    /// The time of day, for the record.
    pub at: jiff::Timestamp,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The attachment has an address already.
    #[error("attachment {} already has address {}", .0.key, .0.pair)]
    AlreadyHeld(Box<Attachment>),
    /// The node has blocks of the pool, but none with an address that may go out now.
    #[error("no address of the node's {blocks} blocks is free")]
    NoneCooled {
        /// How many blocks of the pool the node has.
        blocks: usize,
    },
    /// The node has no block of the pool.
    #[error("the node has no block of the pool")]
    NoBlock,
}

/// An address for an ADD, and what its answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The attachment with its address.
    pub attachment: Attachment,
    /// What the block was like when the address was taken.
    pub permit: Permit,
}

/// What a block was like when an ADD took an address of it. The ADD asks [`Ledger::permit_is_valid`] before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The block's name.
    pub block: String,
    /// What the API server's word on the block was worth.
    pub proof: Proof,
    epoch: u64,
}

/// A record of an address in a block of ours that no attachment here has, or another one has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictingAssignment {
    /// The address.
    pub pair: IpPair,
    /// The record's name.
    pub name: String,
    /// Whose it is, in words.
    pub by: String,
}

/// A cooling address, as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoolingAddress {
    /// The address.
    pub pair: IpPair,
    /// When it was freed, in boot time.
    pub since: BootTime,
}

/// The ledger. Shared by reference; every method locks for itself and returns at once.
#[derive(Debug)]
pub struct NodeState {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Default for NodeState {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::channel(0).0 }
    }
}

impl NodeState {
    /// An empty ledger: no block, no attachment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a claim on a block is about to be sent. False: the block is here already, so it is not to be claimed.
    pub fn begin_claim(&self, block: &str, pool: &str) -> bool {
        self.change(|state| state.begin_claim(block, pool))
    }

    /// Takes in a block that the API server says is ours: the answer to a claim, or one that is not here. Attachments that have
    /// addresses of it hold them from now on. False: it is here in another state, and nothing happened.
    pub fn arrive(&self, arrival: Arrival) -> bool {
        self.change(|state| state.arrive(arrival))
    }

    /// Takes in a block of the checkpoint.
    pub fn restore_block(&self, arrival: Arrival, block_state: BlockState) {
        self.write(|state| state.restore_block(arrival, block_state));
    }

    /// Applies an event to a block; whether its state changed. Events that let more addresses go out come from the checkpoint only.
    pub fn on(&self, block: &str, event: BlockEvent) -> bool {
        self.change(|state| state.on(block, event))
    }

    /// Puts every block that counts as ours in doubt.
    pub fn doubt_all(&self) {
        self.change(State::doubt_all);
    }

    /// Begins to give a block back. False: an address of it is in use, or its state forbids it.
    pub fn begin_release(&self, block: &str) -> bool {
        self.change(|state| state.begin_release(block))
    }

    /// Takes one release of these blocks back whose last write was not sent; the block does not serve before `not_before`. Whether there was
    /// one.
    pub fn cancel_release(&self, blocks: &[String], now: BootTime, not_before: BootTime) -> bool {
        self.change(|state| state.cancel_release(blocks, now, not_before))
    }

    /// A block in doubt is ours, but the Node was deleted or is out of service: begins to give it back. False: an address of it is in use.
    pub fn release_doubted(&self, block: &str) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|state| state.release_doubted(block, now))
    }

    /// A block in doubt is nobody's: forgets it, unless an address of it is in use.
    pub fn found_vacant(&self, block: &str) -> bool {
        self.change(|state| state.found_vacant(block))
    }

    /// A block in doubt is another node's. Returns the attachments that still have addresses of it.
    pub fn found_others(&self, block: &str) -> Vec<Attachment> {
        self.write(|state| state.found_others(block))
    }

    /// Notes what the API server last said of a block that is ours.
    pub fn refresh(&self, block: &str, uid: &str, resource_version: &str, deleting: bool) {
        self.change(|state| state.refresh(block, uid, resource_version, deleting));
    }

    /// Notes that the API server says the block is ours. `records_seen`: its records were listed, too.
    pub fn prove(&self, block: &str, proof: Proof, records_seen: bool) {
        self.lock().prove(block, proof, records_seen);
    }

    /// All blocks but those whose first claim is under way.
    pub fn blocks(&self) -> Vec<BlockView> {
        self.read(State::views)
    }

    /// One block.
    pub fn block(&self, name: &str) -> Option<BlockView> {
        self.read(|state| state.blocks.get(name)?.view())
    }

    /// The state of a block; `None`: the node has nothing to do with it.
    pub fn block_state(&self, name: &str) -> Option<BlockState> {
        self.read(|state| state.blocks.get(name).map(block::Block::state))
    }

    /// How many blocks of a pool count as ours, claims under way included.
    pub fn block_count(&self, pool: &str) -> usize {
        let ours = |block: &&block::Block| block.pool == pool && block.state().counts_as_ours();
        self.read(|state| state.blocks.values().filter(ours).count())
    }

    /// How many blocks of a pool are on their way into service.
    pub fn blocks_coming(&self, pool: &str) -> usize {
        let coming = |block: &&block::Block| {
            block.pool == pool && matches!(block.state(), BlockState::Claiming { .. } | BlockState::Exporting { .. })
        };
        self.read(|state| state.blocks.values().filter(coming).count())
    }

    /// The attachments that have addresses of a block.
    pub fn residents(&self, block: &str) -> Vec<Attachment> {
        self.read(|state| state.residents_of(block))
    }

    /// The ranges whose routes should be in the kernel.
    pub fn exported(&self) -> Vec<BlockRange> {
        self.blocks().into_iter().filter(|block| block.state.exported()).map(|block| block.held.range).collect()
    }

    /// The blocks as the checkpoint should have them once these transitions are made.
    pub fn saved_with(&self, promotions: &[(String, BlockEvent)]) -> Vec<SavedBlock> {
        self.read(|state| state.saved_with(promotions))
    }

    /// Takes in what a pool reserves now; says nothing to anybody if that is what it reserved before.
    pub fn set_reserved(&self, pool: &str, reserved: &Reserved) {
        self.change(|state| state.set_reserved(pool, reserved));
    }

    /// Takes an address for an attachment: one never used or rested long enough, from the fullest block that has one.
    pub fn assign(&self, request: &Request<'_>, now: BootTime) -> Result<Taken, AssignError> {
        self.try_write(|state| state.assign(request, now, false))
    }

    /// Takes the address that cools longest although it has not rested the whole cool-down: a pod that starts beats one that doesn't.
    pub fn assign_early(&self, request: &Request<'_>, now: BootTime) -> Result<Taken, AssignError> {
        self.try_write(|state| state.assign(request, now, true))
    }

    /// Whether the block that an ADD took its address from was never in doubt since.
    pub fn permit_is_valid(&self, permit: &Permit) -> bool {
        self.read(|state| state.permit_is_valid(permit))
    }

    /// Enters an attachment that already has its address: one of the journal, or one that only the kernel knows.
    pub fn restore(&self, attachment: Attachment) {
        self.write(|state| state.restore(attachment));
    }

    /// Changes an attachment. Its address and key stay what they are. `None`: there is no such attachment.
    pub fn update(&self, key: &AttachmentKey, change: impl FnOnce(&mut Attachment)) -> Option<Attachment> {
        self.write(|state| {
            let attachment = state.attachments.get_mut(key)?;
            let pair = attachment.pair;
            change(attachment);
            attachment.pair = pair;
            Some(attachment.clone())
        })
    }

    /// Ends an attachment; its address cools from now on. `None`: there is no such attachment, and nothing happens.
    pub fn release(&self, key: &AttachmentKey, now: BootTime) -> Option<Attachment> {
        self.write(|state| state.release(key, now))
    }

    /// The attachment of a key.
    pub fn attachment(&self, key: &AttachmentKey) -> Option<Attachment> {
        self.read(|state| state.attachments.get(key).cloned())
    }

    /// All attachments.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.read(|state| state.attachments.values().cloned().collect())
    }

    /// How many attachments there are.
    pub fn attachment_count(&self) -> usize {
        self.read(|state| state.attachments.len())
    }

    /// Does not hand an address out while another attachment has a record of it.
    pub fn pass_over(&self, record: ConflictingAssignment) -> bool {
        self.write(|state| state.pass_over(record.pair, record))
    }

    /// The record of the other attachment is gone: the address may go out again.
    pub fn end_pass_over(&self, pair: IpPair) -> bool {
        let now = bobbin_datapath::boot_time();
        self.change(|state| state.end_pass_over(pair, now))
    }

    /// The addresses that are passed over.
    pub fn passed_over(&self) -> Vec<ConflictingAssignment> {
        self.read(State::passed_over)
    }

    /// The node's serving blocks of a pool, as the stock decision wants them.
    pub fn pool_use(&self, pool: &str, cooldown: Duration) -> Vec<BlockUse> {
        let now = bobbin_datapath::boot_time();
        self.read(|state| state.pool_use(pool, cooldown, now))
    }

    /// All cooling addresses.
    #[cfg(test)]
    pub fn resting(&self) -> Vec<CoolingAddress> {
        self.read(State::resting)
    }

    /// Puts kept addresses to rest again, where they are not held; those of blocks that are not there yet when the block comes.
    pub fn rest(&self, resting: &[CoolingAddress]) {
        self.write(|state| state.rest(resting));
    }

    /// Counts up on every change; wakes the stock and ADDs that wait.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Like [`Self::write`], but wakes nobody when nothing changed.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) -> bool {
        let changed = change(&mut self.lock());
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        changed
    }

    fn try_write<T, E>(&self, change: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
        let result = change(&mut self.lock())?;
        self.changed.send_modify(|count| *count += 1);
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No method panics between two changes that belong together, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
