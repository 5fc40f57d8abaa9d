//! In which order a node tries the blocks of a window, so that nodes rarely want the same one.
//!
//! The order is a permutation of the window keyed by (node, pool, attempt): a Feistel network over the next power of four,
//! whose results outside the window are fed in again. It costs no memory, however large the window.

use crate::hash::{stable, stir};

const ROUNDS: u64 = 4;

/// All indices from `first` to `last` (both included), each once, in an order of this node's own.
///
/// Another `attempt_seed` gives another order. An empty iterator if `last < first`.
pub fn candidates(
    node: &str,
    pool: &str,
    first: u64,
    last: u64,
    attempt_seed: u64,
) -> impl Iterator<Item = u64> + use<> {
    let key = stable(&[node.as_bytes(), pool.as_bytes(), &attempt_seed.to_le_bytes()]);
    let most = last.checked_sub(first);
    let permutation = Permutation::new(key, most.unwrap_or(0));
    most.into_iter().flat_map(|most| 0..=most).map(move |position| first + permutation.of(position))
}

/// A permutation of `0..=most`.
struct Permutation {
    key: u64,
    most: u64,
    half_bits: u32,
}

impl Permutation {
    fn new(key: u64, most: u64) -> Self {
        let bits = u64::BITS - most.leading_zeros();
        Self { key, most, half_bits: bits.div_ceil(2) }
    }

    /// Where a position goes. Walks the cycle until it is inside again; the network's domain is less than four times as
    /// large, so that is soon.
    fn of(&self, position: u64) -> u64 {
        let mut place = position;
        loop {
            place = self.shuffle(place);
            if place <= self.most {
                return place;
            }
        }
    }

    /// One pass through the network: a permutation of all numbers of 2 × `half_bits` bits.
    fn shuffle(&self, number: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..ROUNDS {
            let mixed = stir(right ^ stir(self.key.wrapping_add(round)));
            (left, right) = (right, left ^ (mixed & mask));
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests;
