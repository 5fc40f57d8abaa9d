//! The hash is part of the behaviour: it may never change.

use super::*;

#[test]
fn the_hash_is_the_same_in_every_build() {
    assert_eq!(stir(0), 0xe220_a839_7b1d_cdaf); // SplitMix64's published first output for seed 0
    assert_eq!(stable(&[]), stir(OFFSET));
    assert_eq!(stable(&[b"n1", b"default"]), stable(&[b"n1", b"default"]));
}

#[test]
fn where_one_part_ends_counts() {
    assert_ne!(stable(&[b"ab", b"c"]), stable(&[b"a", b"bc"]));
    assert_ne!(stable(&[b"", b"a"]), stable(&[b"a", b""]));
}
