//! The order in which a node tries to claim blocks. Nodes have different orders, so two nodes rarely try the same
//! block.
//!
//! The order is a permutation of the block indices. The permutation depends on the node, the pool and the caller's seed. A Feistel network
//! computes the permutation without a table, even for a large range. The size of the network is the number of indices, rounded up to a
//! power of four. If a result is not an index, the network shuffles the result again.

use crate::hash::{mix_bits, stable_hash};

const ROUNDS: u64 = 4;

/// All indices from `first` to `last` (inclusive), each once, in an order that depends on the node, the pool and the seed.
///
/// Returns no index if `last < first`.
pub fn candidates(
    node: &str,
    pool: &str,
    first: u64,
    last: u64,
    attempt_seed: u64,
) -> impl Iterator<Item = u64> + use<> {
    let key = stable_hash(&[node.as_bytes(), pool.as_bytes(), &attempt_seed.to_le_bytes()]);
    let span = last.checked_sub(first);
    let permutation = Permutation::new(key, span.unwrap_or(0));
    span.into_iter().flat_map(|span| 0..=span).map(move |position| first + permutation.of(position))
}

/// A permutation of the numbers `0..=last`.
struct Permutation {
    key: u64,
    last: u64,
    half_bits: u32,
}

impl Permutation {
    fn new(key: u64, last: u64) -> Self {
        let bits = u64::BITS - last.leading_zeros();
        Self { key, last, half_bits: bits.div_ceil(2) }
    }

    /// The number at a position of the permutation. The loop shuffles the number repeatedly, and stops when the number
    /// is at most `last`. The loop needs few steps, because the network is less than four times as large as the
    /// permutation.
    fn of(&self, position: u64) -> u64 {
        let mut place = position;
        loop {
            place = self.shuffle(place);
            if place <= self.last {
                return place;
            }
        }
    }

    /// Applies the network once. The network permutes all numbers of 2 × `half_bits` bits.
    fn shuffle(&self, number: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..ROUNDS {
            let mixed = mix_bits(right ^ mix_bits(self.key.wrapping_add(round)));
            (left, right) = (right, left ^ (mixed & mask));
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests;
