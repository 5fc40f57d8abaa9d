//! The order in which a node tries to claim blocks, so that two nodes rarely try the same one.
//!
//! The order is a permutation of the indices, keyed by (node, pool, attempt). It is a Feistel network over the next power of
//! four; results outside the range go through it again. It needs no memory, whatever the size of the range.

use crate::hash::{stable, stir};

const ROUNDS: u64 = 4;

/// All indices from `first` to `last` (both included), each once, in an order that depends on the node and the seed.
///
/// Empty if `last < first`.
pub fn candidates(
    node: &str,
    pool: &str,
    first: u64,
    last: u64,
    attempt_seed: u64,
) -> impl Iterator<Item = u64> + use<> {
    let key = stable(&[node.as_bytes(), pool.as_bytes(), &attempt_seed.to_le_bytes()]);
    let span = last.checked_sub(first);
    let permutation = Permutation::new(key, span.unwrap_or(0));
    span.into_iter().flat_map(|span| 0..=span).map(move |position| first + permutation.of(position))
}

/// A permutation of `0..=last`.
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

    /// The image of a position. Repeats the network until the result is in range, which is soon: the network's domain is less
    /// than four times as large.
    fn of(&self, position: u64) -> u64 {
        let mut place = position;
        loop {
            place = self.shuffle(place);
            if place <= self.last {
                return place;
            }
        }
    }

    /// The network once: a permutation of all numbers of 2 × `half_bits` bits.
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
