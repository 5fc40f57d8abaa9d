//! Tests that the hashes keep their values, which must never change.

use super::*;

#[test]
fn fnv1a_returns_the_published_values() {
    assert_eq!(fnv1a([]), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(*b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a(*b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn the_hash_is_the_same_in_every_build() {
    assert_eq!(mix_bits(0), 0xe220_a839_7b1d_cdaf); // SplitMix64's published first output for seed 0
    assert_eq!(stable_hash(&[]), mix_bits(OFFSET));
    assert_eq!(stable_hash(&[b"n1", b"default"]), 11_405_523_686_875_885_201);
}

#[test]
fn the_hash_depends_on_where_each_part_ends() {
    assert_ne!(stable_hash(&[b"ab", b"c"]), stable_hash(&[b"a", b"bc"]));
    assert_ne!(stable_hash(&[b"", b"a"]), stable_hash(&[b"a", b""]));
}
