//! Allocates the addresses of one claimed block. The allocator knows which addresses are held or cooling, and picks the
//! address to assign next.

use std::collections::BTreeSet;
use std::time::Duration;

use fixedbitset::FixedBitSet;

use crate::block::BlockRange;
pub use crate::boot_time::BootTime;
use crate::reserved::Reserved;

/// The allocation state of a block. Each address is unused, held or cooling. The allocator never picks a reserved or
/// excluded address.
#[derive(Clone, Debug)]
pub struct BlockAllocator {
    range: BlockRange,
    held: FixedBitSet,
    /// The addresses that do not cool down, and that no attachment has held since the node claimed the block.
    unused: FixedBitSet,
    reserved: FixedBitSet,
    excluded: FixedBitSet,
    /// For each offset, the time at which the cool-down of the address began. `None` if the address does not cool down.
    since: Vec<Option<BootTime>>,
    cooling_order: BTreeSet<(BootTime, u32)>,
}

impl BlockAllocator {
    /// Creates the state of a block in which no address is held. The cool-down of every address began at
    /// `cooling_since`, the time of the block's last release. If `cooling_since` is `None`, no address cools down.
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

    /// Marks an address as held. A reserved or excluded address can become held too, because a pod may already use the
    /// address. Returns false if the address is already held or lies outside the block.
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

    /// Starts the cool-down of an address at the given time. Does nothing if the address is held. If the address is
    /// already cooling, the later of the two start times counts.
    pub fn cool_since(&mut self, offset: u32, at: BootTime) {
        if offset < self.range.len() && !self.is_held(offset) {
            let at = self.since[offset as usize].map_or(at, |known| known.max(at));
            self.unused.set(offset as usize, false);
            self.end_cooldown(offset);
            self.start_cooldown(offset, at);
        }
    }

    /// Excludes an address that another attachment may use: the allocator no longer picks this address. A pod that
    /// holds the address keeps it. [`Self::include`] ends the exclusion.
    pub fn exclude(&mut self, offset: u32) {
        if offset < self.range.len() {
            self.excluded.insert(offset as usize);
        }
    }

    /// Ends the exclusion of an address that [`Self::exclude`] started.
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

    /// Returns the offset of the address to assign next: the lowest unused address. If no address is unused, returns
    /// the longest cooling address if its cool-down is over. The caller must then call [`Self::hold`] for the address.
    pub fn pick_cooled(&self, now: BootTime, cooldown: Duration) -> Option<u32> {
        self.first_unused().or_else(|| {
            self.longest_cooling().filter(|(_, since)| now.since(*since) >= cooldown).map(|(offset, _)| offset)
        })
    }

    /// The offset of the address that has been cooling longest, and the time at which its cool-down began. Reserved and
    /// excluded addresses do not count.
    pub fn longest_cooling(&self) -> Option<(u32, BootTime)> {
        self.cooling_order
            .iter()
            .find(|(_, offset)| self.may_be_picked(*offset))
            .map(|(since, offset)| (*offset, *since))
    }

    /// The offset of each cooling address, with the time at which the cool-down began. The address that has been
    /// cooling longest comes first.
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

    /// The number of addresses that are neither reserved nor excluded. Held addresses and cooling addresses count too.
    pub fn usable(&self) -> u32 {
        self.range.len() - self.reserved.union_count(&self.excluded) as u32
    }

    /// The number of addresses that have not finished their cool-down. Reserved and excluded addresses do not count.
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
