//! Allocates the addresses of one claimed block: which are held, which cool down, which is next.

use std::collections::BTreeSet;
use std::time::Duration;

use fixedbitset::FixedBitSet;

use crate::block::BlockRange;
pub use crate::boot_time::BootTime;
use crate::reserved::Reserved;

/// The allocation state of a block. An address is unused, held or cooling. It may also be reserved or excluded; then it is never
/// picked.
#[derive(Clone, Debug)]
pub struct BlockAllocator {
    range: BlockRange,
    held: FixedBitSet,
    /// Never used since the block was claimed.
    unused: FixedBitSet,
    reserved: FixedBitSet,
    excluded: FixedBitSet,
    /// When each cooling address was freed, by offset and in order.
    since: Vec<Option<BootTime>>,
    cooling_order: BTreeSet<(BootTime, u32)>,
}

impl BlockAllocator {
    /// A block without held addresses. `cooling_since` is when the block was last released: since then all addresses cool down.
    /// With `None`, no address cools down.
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

    /// The addresses of the block.
    pub fn range(&self) -> &BlockRange {
        &self.range
    }

    /// Marks an address as held, even a reserved or excluded one, because it may be in use already. Returns false if it is held already or
    /// not in the block.
    pub fn hold(&mut self, offset: u32) -> bool {
        if offset >= self.range.len() || self.held.put(offset as usize) {
            return false;
        }
        self.unused.set(offset as usize, false);
        self.end_cooldown(offset);
        true
    }

    /// Frees a held address and starts its cool-down. Does nothing if the address is not held.
    pub fn free(&mut self, offset: u32, now: BootTime) {
        if self.is_held(offset) {
            self.held.set(offset as usize, false);
            self.start_cooldown(offset, now);
        }
    }

    /// Sets when the cool-down of an address began, unless the address is held. The later of two times counts.
    pub fn cool_since(&mut self, offset: u32, at: BootTime) {
        if offset < self.range.len() && !self.is_held(offset) {
            let at = self.since[offset as usize].map_or(at, |known| known.max(at));
            self.unused.set(offset as usize, false);
            self.end_cooldown(offset);
            self.start_cooldown(offset, at);
        }
    }

    /// Stops picking the address until [`Self::include`], because another node has it, too. A pod of this node keeps it.
    pub fn exclude(&mut self, offset: u32) {
        if offset < self.range.len() {
            self.excluded.insert(offset as usize);
        }
    }

    /// Undoes [`Self::exclude`].
    pub fn include(&mut self, offset: u32) {
        if offset < self.range.len() {
            self.excluded.set(offset as usize, false);
        }
    }

    /// Replaces the pool's reserved addresses.
    pub fn set_reserved(&mut self, reserved: &Reserved) {
        for offset in 0..self.range.len() {
            let covered = self.range.pair(offset).is_some_and(|pair| reserved.covers(&pair));
            self.reserved.set(offset as usize, covered);
        }
    }

    /// The address to assign next: the lowest unused one, or else the longest cooling one after its full cool-down.
    /// [`Self::hold`] then marks it as held.
    pub fn pick_cooled(&self, now: BootTime, cooldown: Duration) -> Option<u32> {
        self.first_unused().or_else(|| {
            self.longest_cooling().filter(|(_, since)| now.since(*since) >= cooldown).map(|(offset, _)| offset)
        })
    }

    /// The address that has cooled down longest, and since when. Reserved and excluded addresses are left out.
    pub fn longest_cooling(&self) -> Option<(u32, BootTime)> {
        self.cooling_order
            .iter()
            .find(|(_, offset)| self.may_be_picked(*offset))
            .map(|(since, offset)| (*offset, *since))
    }

    /// All cooling addresses, longest first, and since when.
    pub fn cooling_addresses(&self) -> impl Iterator<Item = (u32, BootTime)> + '_ {
        self.cooling_order.iter().map(|(since, offset)| (*offset, *since))
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

    /// How many addresses can be assigned, including held ones: all except reserved and excluded ones.
    pub fn usable(&self) -> u32 {
        self.range.len() - self.reserved.union_count(&self.excluded) as u32
    }

    /// How many usable addresses have not finished their cool-down.
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

    /// Starts the cool-down of an address.
    fn start_cooldown(&mut self, offset: u32, at: BootTime) {
        self.since[offset as usize] = Some(at);
        self.cooling_order.insert((at, offset));
    }

    /// Ends the cool-down of an address, if it has one.
    fn end_cooldown(&mut self, offset: u32) {
        if let Some(at) = self.since[offset as usize].take() {
            self.cooling_order.remove(&(at, offset));
        }
    }
}

#[cfg(test)]
mod tests;
