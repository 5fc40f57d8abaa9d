//! Hashes that are the same in every build and on every node. They spread values evenly, but are not cryptographic.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The 64-bit FNV-1a hash of the bytes.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// One hash of several byte strings: the FNV-1a hash, with its bits mixed by [`mix_bits`].
///
/// The hash includes the length of each string, so that `ab` + `c` differs from `a` + `bc`.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    mix_bits(fnv1a(parts.iter().flat_map(|part| part.len().to_le_bytes().into_iter().chain(part.iter().copied()))))
}

/// Mixes every bit of the input into all bits of the output (the finalizer of SplitMix64).
pub fn mix_bits(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
