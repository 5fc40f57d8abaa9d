//! Compares the computed number of reserved addresses with a count that checks each address.

use proptest::prelude::*;

use super::*;
use crate::block::BlockRange;

#[test]
fn a_pair_is_reserved_if_either_address_is() {
    let reserved = Reserved::parse(&["10.0.0.1".to_owned(), "fd00::8/125".to_owned()]).unwrap();
    let block = BlockRange::parse(Some("10.0.0.0/28"), Some("fd00::/124")).unwrap();
    let covered: Vec<u32> = (0..16).filter(|offset| reserved.covers(&block.pair(*offset).unwrap())).collect();
    assert_eq!(covered, [1, 8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(reserved.count_in(&block.as_subnet()), 9);
}

#[test]
fn the_error_names_the_invalid_entry() {
    let error = Reserved::parse(&["10.0.0.1".to_owned(), "10.0.0".to_owned()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "reserved entry \"10.0.0\" is neither an address nor a CIDR: write it like 10.64.0.1 or 10.64.0.0/28"
    );
}

#[test]
fn reserving_every_address_does_not_overflow() {
    let reserved = Reserved::parse(&["::/0".to_owned(), "0.0.0.0/0".to_owned()]).unwrap();
    let subnet = |text| SubnetPair::parse(None, Some(text)).unwrap();
    assert_eq!(reserved.count_in(&subnet("2001:db8::/32")), 1 << 96);
    assert_eq!(reserved.count_in(&subnet("::/0")), u128::MAX);
    assert_eq!(reserved.count_among_first(&subnet("::/0"), 0), 0);
}

proptest! {
    #[test]
    fn the_count_equals_a_check_of_each_address(
        ipv4 in prop::collection::vec((any::<u8>(), 24_u8..=32), 0..4),
        ipv6 in prop::collection::vec((any::<u8>(), 120_u8..=128), 0..4),
        families in 0..3, limit in 0_u32..=300,
    ) {
        let entries: Vec<String> = ipv4.iter().map(|(host, len)| format!("10.0.0.{host}/{len}"))
            .chain(ipv6.iter().map(|(host, len)| format!("fd00::{host:x}/{len}"))).collect();
        let reserved = Reserved::parse(&entries).unwrap();
        let block = BlockRange::parse((families != 1).then_some("10.0.0.0/24"), (families != 0).then_some("fd00::/120")).unwrap();
        let among = |limit: u32| (0..block.len().min(limit)).filter(|i| reserved.covers(&block.pair(*i).unwrap())).count() as u128;
        prop_assert_eq!(reserved.count_in(&block.as_subnet()), among(256));
        prop_assert_eq!(reserved.count_among_first(&block.as_subnet(), u128::from(limit)), among(limit));
    }
}
