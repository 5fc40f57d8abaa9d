//! The addresses of one claimed block: which are held, which rest, which goes out next. The agent's ledger owns one per block.

use std::collections::BTreeSet;
use std::time::Duration;

use fixedbitset::FixedBitSet;

use crate::block::BlockRange;
pub use crate::boot_time::BootTime;
use crate::reserved::Reserved;

/// Who is where in a block. An address is unused, held or cooling; apart from that it may be reserved or retired, and
/// then it is never picked.
#[derive(Clone, Debug)]
pub struct BlockAllocator {
    range: BlockRange,
    held: FixedBitSet,
    /// Never used since the block was claimed.
    unused: FixedBitSet,
    reserved: FixedBitSet,
    retired: FixedBitSet,
    /// The moment each cooling address was freed, by offset and in order.
    since: Vec<Option<BootTime>>,
    resting: BTreeSet<(BootTime, u32)>,
}

impl BlockAllocator {
    /// A block with no address held. All rest since the given moment (when the block was last given back), or none cools.
    pub fn new(range: BlockRange, reserved: &Reserved, cooling_since: Option<BootTime>) -> Self {
        let len = range.len() as usize;
        let mut unused = FixedBitSet::with_capacity(len);
        unused.set_range(.., cooling_since.is_none());
        let mut this = Self {
            range,
            held: FixedBitSet::with_capacity(len),
            unused,
            reserved: FixedBitSet::with_capacity(len),
            retired: FixedBitSet::with_capacity(len),
            since: vec![cooling_since; len],
            resting: cooling_since
                .into_iter()
                .flat_map(|at| (0..range.len()).map(move |offset| (at, offset)))
                .collect(),
        };
        this.set_reserved(reserved);
        this
    }

    /// Where the block lies.
    pub fn range(&self) -> &BlockRange {
        &self.range
    }

    /// Takes an address, reserved and retired ones included (what is in use is in use). False: it is held already, or not of
    /// the block.
    pub fn hold(&mut self, offset: u32) -> bool {
        if offset >= self.range.len() || self.held.put(offset as usize) {
            return false;
        }
        self.unused.set(offset as usize, false);
        self.wake(offset);
        true
    }

    /// Frees a held address; it cools from now on. Nothing happens if it is not held, so a repeated call does no harm.
    pub fn free(&mut self, offset: u32, now: BootTime) {
        if self.is_held(offset) {
            self.held.set(offset as usize, false);
            self.lay(offset, now);
        }
    }

    /// Notes that an address that is not held cools since a moment; the later of two moments counts.
    pub fn cool_since(&mut self, offset: u32, at: BootTime) {
        if offset < self.range.len() && !self.is_held(offset) {
            let at = self.since[offset as usize].map_or(at, |known| known.max(at));
            self.unused.set(offset as usize, false);
            self.wake(offset);
            self.lay(offset, at);
        }
    }

    /// Does not pick the address until [`Self::reinstate`], for somebody else has it too. Who holds it here goes on.
    pub fn exclude(&mut self, offset: u32) {
        if offset < self.range.len() {
            self.retired.insert(offset as usize);
        }
    }

    /// Takes [`Self::retire`] back.
    pub fn include(&mut self, offset: u32) {
        if offset < self.range.len() {
            self.retired.set(offset as usize, false);
        }
    }

    /// Reads the pool's reserved addresses anew.
    pub fn set_reserved(&mut self, reserved: &Reserved) {
        for offset in 0..self.range.len() {
            let covered = self.range.pair(offset).is_some_and(|pair| reserved.covers(&pair));
            self.reserved.set(offset as usize, covered);
        }
    }

    /// The address to hand out next: one never used (the lowest), else the longest rested if it rested the whole
    /// cool-down. It is not taken yet: [`Self::hold`] does that.
    pub fn pick_cooled(&self, now: BootTime, cooldown: Duration) -> Option<u32> {
        self.first_unused().or_else(|| {
            self.longest_cooling().filter(|(_, since)| now.since(*since) >= cooldown).map(|(offset, _)| offset)
        })
    }

    /// The address that cools longest, and since when; reserved and retired ones aside.
    pub fn longest_cooling(&self) -> Option<(u32, BootTime)> {
        self.resting.iter().find(|(_, offset)| self.may_be_picked(*offset)).map(|(since, offset)| (*offset, *since))
    }

    /// All cooling addresses, longest first, and since when.
    pub fn resting(&self) -> impl Iterator<Item = (u32, BootTime)> + '_ {
        self.resting.iter().map(|(since, offset)| (*offset, *since))
    }

    /// How many addresses are held.
    pub fn held(&self) -> u32 {
        self.held.count_ones(..) as u32
    }

    /// Whether this address is held.
    pub fn is_held(&self, offset: u32) -> bool {
        self.held.contains(offset as usize)
    }

    /// Whether no address is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_clear()
    }

    /// How many addresses there are to hand out, held ones included: all but the reserved and the retired.
    pub fn usable(&self) -> u32 {
        self.range.len() - self.reserved.union_count(&self.retired) as u32
    }

    /// How many usable addresses have not yet rested the whole cool-down.
    pub fn cooling(&self, now: BootTime, cooldown: Duration) -> u32 {
        self.resting
            .iter()
            .rev()
            .take_while(|(since, _)| now.since(*since) < cooldown)
            .filter(|(_, offset)| self.may_be_picked(*offset))
            .count() as u32
    }

    /// How many addresses [`Self::pick_cooled`] could hand out now.
    pub fn free_count(&self, now: BootTime, cooldown: Duration) -> u32 {
        let unused = self.unused.ones().filter(|offset| self.may_be_picked(*offset as u32)).count();
        let rested = self
            .resting
            .iter()
            .take_while(|(since, _)| now.since(*since) >= cooldown)
            .filter(|(_, offset)| self.may_be_picked(*offset))
            .count();
        (unused + rested) as u32
    }

    fn first_unused(&self) -> Option<u32> {
        self.unused.ones().map(|offset| offset as u32).find(|offset| self.may_be_picked(*offset))
    }

    fn may_be_picked(&self, offset: u32) -> bool {
        !self.reserved.contains(offset as usize) && !self.retired.contains(offset as usize)
    }

    /// Lays an address to rest.
    fn lay(&mut self, offset: u32, at: BootTime) {
        self.since[offset as usize] = Some(at);
        self.resting.insert((at, offset));
    }

    /// Ends the cool-down of an address, if it has one.
    fn wake(&mut self, offset: u32) {
        if let Some(at) = self.since[offset as usize].take() {
            self.resting.remove(&(at, offset));
        }
    }
}

#[cfg(test)]
mod tests;
