//! The division of a pool into blocks. Converts between a block's index, the block's address range, and the addresses
//! in the block.
//!
//! Each accepted subnet has its own range of block indices, which never changes. Bobbin uses at most 2^40 blocks of a subnet, and a pool
//! has at most 64 subnets. So each index is below 2^46, and the arithmetic can't overflow.

pub mod numbering;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use bobbin_crds::pool::{MAX_BLOCK_SIZE_BITS, MAX_NEXT_INDEX, MAX_SUBNETS};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::block::BlockRange;
use crate::family::Family;
use crate::reserved::Reserved;
use crate::subnet::SubnetPair;

/// Bobbin uses at most the first 2^40 blocks of a subnet. It does not use the rest of a larger subnet.
pub const MAX_SUBNET_BITS: u8 = 40;

/// The blocks of all subnets of a pool. The layout stores no block: it computes a block when a caller asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLayout {
    block_bits: u8,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    subnet: SubnetPair,
    span: Range<u64>,
}

/// Why a pool's subnets can't be divided into blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The pool has more than 64 subnets.
    #[error("a pool has at most 64 subnets, but this pool has {0} subnets: create a second pool")]
    TooManySubnets(usize),
    /// A block would have more than 65,536 addresses.
    #[error("blockSizeBits is {0}, but a block has 2^0 to 2^16 addresses: set blockSizeBits to a number from 0 to 16")]
    BlockTooLarge(u8),
    /// A subnet is smaller than one block.
    #[error(
        "subnet {subnet} has 2^{bits} addresses, but a block has 2^{block_bits} addresses: set a larger subnet or a smaller blockSizeBits"
    )]
    SubnetTooSmall {
        /// The subnet.
        subnet: SubnetPair,
        /// The number of host bits of the subnet.
        bits: u8,
        /// The pool's `blockSizeBits`.
        block_bits: u8,
    },
    /// A subnet has different address families from the pool's first subnet.
    #[error(
        "subnet {0} has different address families from the pool's first subnet: give every entry the same families"
    )]
    FamiliesDiffer(SubnetPair),
    /// Two subnets of the pool share block indices, or an index is too large.
    #[error(
        "the block indices {first} to {last} of subnet {subnet} are too large or belong to another subnet: restore the pool's status from a backup"
    )]
    IndicesTaken {
        /// The subnet.
        subnet: SubnetPair,
        /// The index of its first block.
        first: u64,
        /// The index of its last block.
        last: u64,
    },
    /// Two subnets of the pool share addresses.
    #[error("subnets {0} and {1} of one pool overlap: remove one of the two")]
    Overlap(SubnetPair, SubnetPair),
}

/// How many blocks a subnet has. The subnet must have at least as many host bits as a block.
fn block_count_of(subnet: &SubnetPair, block_size_bits: u8) -> u64 {
    1 << subnet.host_bits().saturating_sub(block_size_bits).min(MAX_SUBNET_BITS)
}

impl PoolLayout {
    /// Creates a layout that numbers the blocks of the subnets in order, beginning with index 0. A pool without subnets
    /// has no blocks.
    pub fn new(subnets: &[SubnetPair], block_size_bits: u8) -> Result<Self, LayoutError> {
        let mut start = 0;
        let in_order = subnets.iter().map(|subnet| {
            let first = start;
            start += block_count_of(subnet, block_size_bits);
            (*subnet, Some(first))
        });
        Self::placed(&in_order.collect::<Vec<_>>(), block_size_bits)
    }

    /// Creates a layout from subnets and the index of each subnet's first block. A subnet without an index has no
    /// blocks.
    pub fn placed(subnets: &[(SubnetPair, Option<u64>)], block_size_bits: u8) -> Result<Self, LayoutError> {
        if subnets.len() > MAX_SUBNETS {
            return Err(LayoutError::TooManySubnets(subnets.len()));
        }
        if block_size_bits > MAX_BLOCK_SIZE_BITS {
            return Err(LayoutError::BlockTooLarge(block_size_bits));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(subnets.len());
        for (subnet, first) in subnets {
            let bits = subnet.host_bits();
            if bits < block_size_bits {
                return Err(LayoutError::SubnetTooSmall { subnet: *subnet, bits, block_bits: block_size_bits });
            }
            if !subnet.same_families(&subnets[0].0) {
                return Err(LayoutError::FamiliesDiffer(*subnet));
            }
            if let Some(other) = entries.iter().find(|entry| entry.subnet.overlaps(subnet)) {
                return Err(LayoutError::Overlap(other.subnet, *subnet));
            }
            let span = first.map_or(0..0, |first| first..first.saturating_add(block_count_of(subnet, block_size_bits)));
            if span.end > MAX_NEXT_INDEX.cast_unsigned() || entries.iter().any(|entry| overlap(&entry.span, &span)) {
                let (first, last) = (span.start, span.end.saturating_sub(1));
                return Err(LayoutError::IndicesTaken { subnet: *subnet, first, last });
            }
            entries.push(Entry { subnet: *subnet, span });
        }
        Ok(Self { block_bits: block_size_bits, entries })
    }

    /// How many blocks the pool can have.
    pub fn block_count(&self) -> u64 {
        self.entries.iter().map(|entry| entry.span.end - entry.span.start).sum()
    }

    /// The block indices of one subnet entry. The first entry has the number 0. The range is empty if the pool has no
    /// such entry, or if the entry has no blocks.
    pub fn span(&self, entry: usize) -> Range<u64> {
        self.entries.get(entry).map_or(0..0, |entry| entry.span.clone())
    }

    /// The address range of the block at an index; `None` if the pool has no such block.
    pub fn block(&self, index: u64) -> Option<BlockRange> {
        let entry = self.entries.iter().find(|entry| entry.span.contains(&index))?;
        let start = u128::from(index - entry.span.start) << self.block_bits;
        Some(BlockRange {
            ipv4: entry.subnet.ipv4.map(|net| slice_ipv4(net, start, self.block_bits)),
            ipv6: entry.subnet.ipv6.map(|net| slice_ipv6(net, start, self.block_bits)),
        })
    }

    /// The index of the block that contains an address; `None` if no block of the pool contains the address.
    pub fn index_of(&self, address: IpAddr) -> Option<u64> {
        self.entries.iter().find_map(|entry| {
            let offset = match address {
                IpAddr::V4(address) => {
                    let net = entry.subnet.ipv4.filter(|net| net.contains(&address))?;
                    u128::from(u32::from(address) - u32::from(net.network()))
                }
                IpAddr::V6(address) => {
                    let net = entry.subnet.ipv6.filter(|net| net.contains(&address))?;
                    u128::from(address) - u128::from(net.network())
                }
            };
            let index = entry.span.start + u64::try_from(offset >> self.block_bits).ok()?.min(1 << MAX_SUBNET_BITS);
            (index < entry.span.end).then_some(index)
        })
    }

    /// The number of addresses of one family in all blocks together; 0 if the pool has no addresses of the family.
    pub fn address_count(&self, family: Family) -> u128 {
        let has = self.entries.first().is_some_and(|entry| match family {
            Family::Ipv4 => entry.subnet.ipv4.is_some(),
            Family::Ipv6 => entry.subnet.ipv6.is_some(),
        });
        if has { u128::from(self.block_count()) << self.block_bits } else { 0 }
    }

    /// How many address pairs in the blocks are reserved. In a dual-stack pool, each family has this number of reserved
    /// addresses.
    pub fn reserved_count(&self, reserved: &Reserved) -> u128 {
        self.entries
            .iter()
            .map(|entry| {
                let used = u128::from(entry.span.end - entry.span.start) << self.block_bits;
                reserved.count_among_first(&entry.subnet, used)
            })
            .sum()
    }
}

/// Whether two ranges of indices have a common index.
fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The part of an IPv4 subnet that begins `start` addresses after the subnet's first address and has `bits` host bits.
fn slice_ipv4(net: Ipv4Net, start: u128, bits: u8) -> Ipv4Net {
    let start = u32::try_from(start).expect("a block begins inside its subnet, which has at most 2^32 addresses");
    Ipv4Net::new_assert(Ipv4Addr::from(u32::from(net.network()) | start), 32 - bits)
}

/// The part of an IPv6 subnet that begins `start` addresses after the subnet's first address and has `bits` host bits.
fn slice_ipv6(net: Ipv6Net, start: u128, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from(u128::from(net.network()) | start), 128 - bits)
}

#[cfg(test)]
mod tests;
