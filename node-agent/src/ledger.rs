//! The one owner of this node's blocks, addresses and attachments. Verbs assign and release, claim and stock add and give back
//! blocks; it never does IO, and its lock is never held across an await.

mod attachment;
mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_addressing::block::BlockRange;
use bobbin_addressing::reserved::Reserved;
use bobbin_addressing::stock::BlockUse;
use bobbin_addressing::{AttachmentKey, BootTime, Pair};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use attachment::{Attachment, Links, Phase, PodRef};
use state::State;

/// A block that the API server has confirmed as this node's.
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
}

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
    /// How long a freed address of the pool rests.
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
    NoneRested {
        /// How many blocks of the pool the node has.
        blocks: usize,
    },
    /// The node has no block of the pool.
    #[error("the node has no block of the pool")]
    NoBlock,
}

/// The block can't go back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StillUsed {
    /// Addresses of it are held.
    #[error("{0} addresses of it are in use")]
    Held(u32),
    /// It is not, or no longer, this node's, or goes back already.
    #[error("it is not this node's to give back")]
    NotHeld,
}

/// A resting address, as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resting {
    /// The address.
    pub pair: Pair,
    /// When it was freed, in boot time.
    pub since: BootTime,
}

/// The ledger. Shared by reference; every method locks for itself and returns at once.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::channel(0).0 }
    }
}

impl Ledger {
    /// An empty ledger: no block, no attachment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block whose claim the API server has confirmed and whose route is exported. Attachments that have addresses of it hold
    /// them from now on. A block that is there already is refreshed.
    pub fn add_block(&self, block: HeldBlock, resting_since: Option<BootTime>, reserved: &Reserved) {
        let now = bobbin_kernel::boot_time();
        self.write(|state| state.add_block(block, resting_since, reserved, now));
    }

    /// All blocks, those that are going back included.
    pub fn blocks(&self) -> Vec<HeldBlock> {
        self.read(|state| state.blocks.values().map(|block| block.held.clone()).collect())
    }

    /// The blocks that are not on their way back: what a restart may go on assigning from.
    pub fn blocks_to_keep(&self) -> Vec<HeldBlock> {
        self.read(|state| {
            state.blocks.values().filter(|block| !block.releasing).map(|block| block.held.clone()).collect()
        })
    }

    /// One block.
    pub fn block(&self, name: &str) -> Option<HeldBlock> {
        self.read(|state| state.blocks.get(name).map(|block| block.held.clone()))
    }

    /// Notes what the API server last said of a block: its resourceVersion and UID.
    pub fn refresh_block(&self, name: &str, uid: &str, resource_version: &str) {
        self.write(|state| {
            if let Some(block) = state.blocks.get_mut(name) {
                uid.clone_into(&mut block.held.uid);
                resource_version.clone_into(&mut block.held.resource_version);
            }
        });
    }

    /// Takes in what a pool reserves now; says nothing to anybody if that is what it reserved before.
    pub fn set_reserved(&self, pool: &str, reserved: &Reserved) {
        let changed = self.lock().set_reserved(pool, reserved);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Takes an address for an attachment: one never used or rested long enough, from the fullest block that has one.
    pub fn assign(&self, request: &Request<'_>, now: BootTime) -> Result<Attachment, AssignError> {
        self.try_write(|state| state.assign(request, now, false))
    }

    /// Takes the address that rests longest although it has not rested the whole cool-down: a pod that starts beats one that doesn't.
    pub fn assign_early(&self, request: &Request<'_>, now: BootTime) -> Result<Attachment, AssignError> {
        self.try_write(|state| state.assign(request, now, true))
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

    /// Ends an attachment; its address rests from now on. `None`: there is no such attachment, and nothing happens.
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

    /// Never hands this address out again from here: somebody else has a record of it.
    pub fn retire(&self, pair: Pair) {
        self.write(|state| state.retire(pair));
    }

    /// Stops assigning from a block, to give it back.
    ///
    /// # Errors
    /// `StillUsed`, and nothing changes.
    pub fn begin_release(&self, block: &str) -> Result<HeldBlock, StillUsed> {
        self.try_write(|state| state.begin_release(block))
    }

    /// Ends what [`Self::begin_release`] began: the block is gone, or it stayed and is assigned from again.
    pub fn end_release(&self, block: &str, gave_up: bool) {
        self.write(|state| state.end_release(block, gave_up));
    }

    /// Assigns nothing from a block whose owner is in doubt, until [`Self::resume`]; what it has assigned goes on.
    pub fn suspend(&self, block: &str) {
        self.set_suspended(block, true);
    }

    /// The block is this node's after all.
    pub fn resume(&self, block: &str) {
        self.set_suspended(block, false);
    }

    /// Whether the block is there and its owner in doubt.
    pub fn is_suspended(&self, block: &str) -> bool {
        self.read(|state| state.blocks.get(block).is_some_and(|block| block.suspended))
    }

    fn set_suspended(&self, block: &str, suspended: bool) {
        let changed = self.lock().set_suspended(block, suspended);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Forgets a block that is no longer this node's. Its attachments go on; their addresses are assigned no more.
    /// Returns the attachments that have addresses of it.
    pub fn lose_block(&self, block: &str) -> Vec<Attachment> {
        self.write(|state| state.lose_block(block))
    }

    /// The node's blocks of a pool, as the stock decision wants them; blocks on their way back aside.
    pub fn pool_use(&self, pool: &str, cooldown: Duration) -> Vec<BlockUse> {
        let now = bobbin_kernel::boot_time();
        self.read(|state| state.pool_use(pool, cooldown, now))
    }

    /// All resting addresses.
    #[cfg(test)]
    pub fn resting(&self) -> Vec<Resting> {
        self.read(State::resting)
    }

    /// Puts kept addresses to rest again, where they are not held; those of blocks that are not there yet when the block comes.
    pub fn rest(&self, resting: &[Resting]) {
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
mod tests;
