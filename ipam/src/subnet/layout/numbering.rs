//! Determines the block indices of an accepted subnet.
//!
//! If blocks of a subnet exist, the subnet gets the indices that these blocks have, so that block names stay the same.
//! That matters if a pool was restored from a backup without its status. It also matters after an upgrade from an
//! operator version that numbered blocks differently.

use std::ops::Range;

use bobbin_crds::pool::MAX_NEXT_INDEX;

use super::{PoolLayout, block_count_of, overlap};
use crate::block::BlockRange;
use crate::subnet::SubnetPair;

/// The block indices that a pool's subnets already have, and the index that the next subnet gets.
#[derive(Clone, Debug)]
pub struct Numbering<'a> {
    block_size_bits: u8,
    /// All existing blocks whose `poolName` is the pool, each with its index.
    blocks: &'a [(u64, BlockRange)],
    taken: Vec<Range<u64>>,
    /// Indices that are reserved for subnets that have blocks but no indices in the pool's status. No other subnet may get
    /// these indices.
    held: Vec<Range<u64>>,
    next: u64,
}

/// An existing block that does not fit the subnet, because an earlier pool of the same name had other subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The index in the block's name.
    pub index: u64,
    /// The addresses of the block.
    pub range: BlockRange,
}

impl<'a> Numbering<'a> {
    /// Creates a numbering in which no subnet has indices yet. `next` is the pool's `status.nextIndex`.
    pub fn new(block_size_bits: u8, blocks: &'a [(u64, BlockRange)], next: u64) -> Self {
        Self { block_size_bits, blocks, taken: Vec::new(), held: Vec::new(), next }
    }

    /// Records that the first block of a subnet has the index `first`.
    pub fn take(&mut self, subnet: &SubnetPair, first: u64) {
        let span = self.span(subnet, first);
        self.next = self.next.max(span.end);
        self.taken.push(span);
    }

    /// If blocks of the subnet exist, reserves all indices of the subnet, computed from these blocks. Call this function for
    /// each subnet without indices in the status, after all calls of [`Self::take`] and before [`Self::give`].
    pub fn hold(&mut self, subnet: &SubnetPair) {
        if let Ok(Some(first)) = self.existing(subnet) {
            self.held.push(self.span(subnet, first));
        }
    }

    /// The index after the highest index that a subnet of the pool has ever had.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Gives a subnet its indices, and returns the first index. Before this call, call [`Self::take`] for every other
    /// subnet that has indices.
    ///
    /// # Errors
    /// Fails if a block of the pool lies in the subnet but has a wrong size, an invalid index or an index of another
    /// subnet. The error contains this block.
    pub fn give(&mut self, subnet: &SubnetPair) -> Result<u64, Misfit> {
        let first = self.existing(subnet)?.unwrap_or_else(|| self.unused(subnet));
        self.take(subnet, first);
        Ok(first)
    }

    /// The first index for a subnet without blocks: the lowest possible index that is at least `next`. None of the subnet's
    /// indices may belong to another subnet or to an existing block.
    fn unused(&self, subnet: &SubnetPair) -> u64 {
        let mut first = self.next;
        loop {
            let span = self.span(subnet, first);
            let held = self.held.iter().filter(|held| overlap(held, &span)).map(|held| held.end);
            let blocks =
                self.blocks.iter().filter(|(index, _)| span.contains(index)).map(|(index, _)| index.saturating_add(1));
            match held.chain(blocks).max() {
                Some(end) => first = end,
                None => return first,
            }
        }
    }

    fn span(&self, subnet: &SubnetPair, first: u64) -> Range<u64> {
        first..first.saturating_add(block_count_of(subnet, self.block_size_bits))
    }

    /// The index of the subnet's first block, computed from the blocks that exist in the subnet. `None` if no block exists in
    /// the subnet.
    ///
    /// # Errors
    /// Fails if a block of the pool lies in the subnet but has a wrong size, an invalid index or an index of another
    /// subnet. The error contains this block.
    pub fn existing(&self, subnet: &SubnetPair) -> Result<Option<u64>, Misfit> {
        let mut found = None;
        let alone = PoolLayout::new(&[*subnet], self.block_size_bits).ok();
        for (index, range) in self.blocks.iter().filter(|(_, range)| range.overlaps_subnet(subnet)) {
            let misfit = Misfit { index: *index, range: *range };
            let address = range.pair(0).and_then(|pair| pair.addresses().next()).ok_or(misfit)?;
            let alone = alone.as_ref().ok_or(misfit)?;
            let offset = alone.index_of(address).filter(|offset| alone.block(*offset) == Some(*range)).ok_or(misfit)?;
            let first = index.checked_sub(offset).ok_or(misfit)?;
            let span = self.span(subnet, first);
            let is_valid = span.end <= MAX_NEXT_INDEX.cast_unsigned();
            if !is_valid || *found.get_or_insert(first) != first || self.taken.iter().any(|taken| overlap(taken, &span))
            {
                return Err(misfit);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(ipv4: &str) -> SubnetPair {
        SubnetPair::parse(Some(ipv4), None).unwrap()
    }

    fn block(index: u64, ipv4: &str) -> (u64, BlockRange) {
        (index, BlockRange::parse(Some(ipv4), None).unwrap())
    }

    #[test]
    fn a_subnet_without_blocks_gets_indices_that_no_subnet_ever_had() {
        let mut numbering = Numbering::new(5, &[], 100);
        numbering.take(&subnet("10.0.0.0/24"), 0);
        assert_eq!(numbering.give(&subnet("10.1.0.0/24")), Ok(100));
        assert_eq!(numbering.give(&subnet("10.2.0.0/26")), Ok(108));
        assert_eq!(numbering.next(), 110);
    }

    #[test]
    fn a_subnet_gets_the_indices_that_its_blocks_have() {
        let blocks = [block(3, "10.0.0.96/27"), block(17, "10.1.0.32/27"), block(20, "10.1.0.128/27")];
        let mut numbering = Numbering::new(5, &blocks, 0);
        assert_eq!(numbering.give(&subnet("10.1.0.0/24")), Ok(16));
        assert_eq!(numbering.give(&subnet("10.0.0.0/24")), Ok(0));
        assert_eq!(numbering.give(&subnet("10.2.0.0/24")), Ok(24));
    }

    #[test]
    fn a_subnet_without_blocks_gets_no_index_that_a_block_of_another_subnet_has() {
        // The existing block in 10.1.0.0/24 reserves the indices 4 to 11 for that subnet. A block outside of the
        // subnets has the index 14.
        let blocks = [block(8, "10.1.0.128/27"), block(14, "10.9.0.0/27")];
        let mut numbering = Numbering::new(5, &blocks, 0);
        for open in ["10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/25"] {
            numbering.hold(&subnet(open));
        }
        assert_eq!(numbering.give(&subnet("10.0.0.0/24")), Ok(15));
        assert_eq!(numbering.give(&subnet("10.1.0.0/24")), Ok(4));
        assert_eq!(numbering.give(&subnet("10.2.0.0/25")), Ok(23));
    }

    #[test]
    fn a_block_with_an_index_that_no_pool_has_gives_no_number() {
        let top = MAX_NEXT_INDEX.cast_unsigned();
        for index in [top, u64::MAX] {
            let blocks = [block(index, "10.1.0.0/27")];
            assert!(Numbering::new(5, &blocks, 0).give(&subnet("10.1.0.0/24")).is_err());
        }
        let blocks = [block(top - 8, "10.1.0.0/27")];
        assert_eq!(Numbering::new(5, &blocks, 0).give(&subnet("10.1.0.0/24")), Ok(top - 8));
    }

    #[test]
    fn a_block_that_contradicts_the_indices_is_named() {
        let refused = |blocks: &[(u64, BlockRange)], taken: u64| {
            let mut numbering = Numbering::new(5, blocks, 0);
            numbering.take(&subnet("10.9.0.0/24"), taken);
            numbering.give(&subnet("10.1.0.0/24")).map_err(|misfit| misfit.index)
        };
        // The refused cases in order: two blocks imply different first indices, a block is too large, an index is too
        // small, an index is taken.
        assert_eq!(refused(&[block(17, "10.1.0.32/27"), block(19, "10.1.0.64/27")], 40), Err(19));
        assert_eq!(refused(&[block(17, "10.1.0.0/26")], 40), Err(17));
        assert_eq!(refused(&[block(1, "10.1.0.64/27")], 40), Err(1));
        assert_eq!(refused(&[block(17, "10.1.0.32/27")], 23), Err(17));
        assert_eq!(refused(&[block(17, "10.1.0.32/27")], 24), Ok(16));
    }
}
