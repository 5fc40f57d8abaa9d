//! Allocates the addresses of one claimed block: knows which addresses are held, which cool down, and which to assign next.

use std::collections::BTreeSet;
use std::time::Duration;

use fixedbitset::FixedBitSet;

use crate::block::BlockRange;
pub use crate::boot_time::BootTime;
use crate::reserved::Reserved;

/// The allocation state of a block. Each address is unused, held or cooling. A reserved or excluded address is never picked.
#[derive(Clone, Debug)]
pub struct BlockAllocator {
    range: BlockRange,
    held: FixedBitSet,
    /// The addresses that no attachment has held since the claim of the block and that have no cool-down.
    unused: FixedBitSet,
    reserved: FixedBitSet,
    excluded: FixedBitSet,
    /// For each offset, when the address at the offset was freed; `None` if the address does not cool down.
    since: Vec<Option<BootTime>>,
    cooling_order: BTreeSet<(BootTime, u32)>,
}

impl BlockAllocator {
    /// The state of a block without held addresses. The cool-down of each address began at `cooling_since`, when a node last
    /// released the block. With `None`, no address cools down.
    pub fn new(range: BlockRange, reserved: &Reserved, cooling_since: Option<BootTime>) -> Self {
        let len = range.len() as usize;
        let mut unused = FixedBitSet::with_capacity(len);
        unused.set_range(.., cooling_since.is_none());
        let mut this = Self {
            range,
            held: FixedBitSet::with_capacity(len),
            unused,
            reserved: FixedBitSet::with_capacity(len),
            excluded: FixedBitSet::with_capacity(len),
            since: vec![cooling_since; len],
            cooling_order: cooling_since
                .into_iter()
                .flat_map(|at| (0..range.len()).map(move |offset| (at, offset)))
                .collect(),
        };
        this.set_reserved(reserved);
        this
    }

    /// The CIDRs of the block.
    pub fn range(&self) -> &BlockRange {
        &self.range
    }

    /// Marks an address as held, even if it is reserved or excluded, because a pod may use it already. Returns false if the
    /// address is held already or not in the block.
    pub fn hold(&mut self, offset: u32) -> bool {
        if offset >= self.range.len() || self.held.put(offset as usize) {
            return false;
        }
        self.unused.set(offset as usize, false);
        self.end_cooldown(offset);
        true
    }

    /// Frees a held address and starts the cool-down of the address. Does nothing if the address is not held.
    pub fn free(&mut self, offset: u32, now: BootTime) {
        if self.is_held(offset) {
            self.held.set(offset as usize, false);
            self.start_cooldown(offset, now);
        }
    }

    /// Sets when the cool-down of an address began, unless the address is held. If the address cools down already, the later
    /// time counts.
    pub fn cool_since(&mut self, offset: u32, at: BootTime) {
        if offset < self.range.len() && !self.is_held(offset) {
            let at = self.since[offset as usize].map_or(at, |known| known.max(at));
            self.unused.set(offset as usize, false);
            self.end_cooldown(offset);
            self.start_cooldown(offset, at);
        }
    }

    /// Excludes an address: the allocator does not pick it until [`Self::include`], because another attachment may use it. A
    /// pod that holds the address keeps it.
    pub fn exclude(&mut self, offset: u32) {
        if offset < self.range.len() {
            self.excluded.insert(offset as usize);
        }
    }

    /// Ends the exclusion of an address, see [`Self::exclude`].
    pub fn include(&mut self, offset: u32) {
        if offset < self.range.len() {
            self.excluded.set(offset as usize, false);
        }
    }

    /// Replaces the block's set of reserved addresses.
    pub fn set_reserved(&mut self, reserved: &Reserved) {
        for offset in 0..self.range.len() {
            let covered = self.range.pair(offset).is_some_and(|pair| reserved.covers(&pair));
            self.reserved.set(offset as usize, covered);
        }
    }

    /// The offset of the address to assign next: the lowest unused address. If no address is unused, returns the address that
    /// has been cooling longest, but only if its cool-down is over. The address is held only after the caller calls
    /// [`Self::hold`].
    pub fn pick_cooled(&self, now: BootTime, cooldown: Duration) -> Option<u32> {
        self.first_unused().or_else(|| {
            self.longest_cooling().filter(|(_, since)| now.since(*since) >= cooldown).map(|(offset, _)| offset)
        })
    }

    /// The offset of the address that has been cooling longest, and since when. Reserved and excluded addresses are skipped.
    pub fn longest_cooling(&self) -> Option<(u32, BootTime)> {
        self.cooling_order
            .iter()
            .find(|(_, offset)| self.may_be_picked(*offset))
            .map(|(since, offset)| (*offset, *since))
    }

    /// The offsets of all cooling addresses, the longest cooling first, each with the time at which its cool-down began.
    pub fn cooling_addresses(&self) -> impl Iterator<Item = (u32, BootTime)> + '_ {
        self.cooling_order.iter().map(|(since, offset)| (*offset, *since))
    }

    /// How many addresses of the block are held.
    pub fn held(&self) -> u32 {
        self.held.count_ones(..) as u32
    }

    /// Whether the address at this offset is held.
    pub fn is_held(&self, offset: u32) -> bool {
        self.held.contains(offset as usize)
    }

    /// Whether no address of the block is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_clear()
    }

    /// How many addresses can be assigned, including addresses that are held now. Reserved and excluded addresses do not
    /// count.
    pub fn usable(&self) -> u32 {
        self.range.len() - self.reserved.union_count(&self.excluded) as u32
    }

    /// How many addresses have not finished their cool-down. Reserved and excluded addresses do not count.
    pub fn cooling(&self, now: BootTime, cooldown: Duration) -> u32 {
        self.cooling_order
            .iter()
            .rev()
            .take_while(|(since, _)| now.since(*since) < cooldown)
            .filter(|(_, offset)| self.may_be_picked(*offset))
            .count() as u32
    }

    fn first_unused(&self) -> Option<u32> {
        self.unused.ones().map(|offset| offset as u32).find(|offset| self.may_be_picked(*offset))
    }

    fn may_be_picked(&self, offset: u32) -> bool {
        !self.reserved.contains(offset as usize) && !self.excluded.contains(offset as usize)
    }

    /// Starts the cool-down of the address at this offset.
    fn start_cooldown(&mut self, offset: u32, at: BootTime) {
        self.since[offset as usize] = Some(at);
        self.cooling_order.insert((at, offset));
    }

    /// Ends the cool-down of the address at this offset. Does nothing if the address does not cool down.
    fn end_cooldown(&mut self, offset: u32) {
        if let Some(at) = self.since[offset as usize].take() {
            self.cooling_order.remove(&(at, offset));
        }
    }
}

#[cfg(test)]
mod tests;
