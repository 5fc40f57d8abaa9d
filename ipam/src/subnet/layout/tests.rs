//! Compares computed block indices with a list of all blocks, and tests the limits of the layout.

use proptest::prelude::*;

use super::*;

fn subnet(ipv4: Option<&str>, ipv6: Option<&str>) -> SubnetPair {
    SubnetPair::parse(ipv4, ipv6).unwrap()
}

/// Lists every block of the subnets with the library ipnet.
fn naive(subnets: &[SubnetPair], bits: u8) -> Vec<BlockRange> {
    let mut all = Vec::new();
    for subnet in subnets {
        let ipv4: Option<Vec<_>> = subnet.ipv4.map(|net| net.subnets(32 - bits).unwrap().collect());
        let ipv6: Option<Vec<_>> = subnet.ipv6.map(|net| net.subnets(128 - bits).unwrap().collect());
        for i in 0..1 << (subnet.host_bits() - bits) {
            all.push(BlockRange { ipv4: ipv4.as_ref().map(|nets| nets[i]), ipv6: ipv6.as_ref().map(|nets| nets[i]) });
        }
    }
    all
}

prop_compose! {
    /// Generates up to four subnets of different sizes that do not overlap. `families` is 0 for IPv4, 1 for IPv6 and 2
    /// for both.
    fn small_pool()(families in 0..3, sizes in prop::collection::vec(0_u8..=7, 0..=4), block_bits in 0_u8..=5)
        -> (Vec<SubnetPair>, u8)
    {
        let subnets = sizes.iter().enumerate().map(|(i, size)| {
            let bits = block_bits + size;
            let ipv4 = (families != 1).then(|| Ipv4Net::new([10, i as u8, 0, 0].into(), 32 - bits).unwrap());
            let ipv6 = (families != 0).then(|| Ipv6Net::new([0xfd00, i as u16, 0, 0, 0, 0, 0, 0].into(), 128 - bits).unwrap());
            SubnetPair { ipv4, ipv6 }
        });
        (subnets.collect(), block_bits)
    }
}

proptest! {
    #[test]
    fn a_layout_lists_the_blocks_in_order((subnets, bits) in small_pool(), reserved_from in 0_u32..256, reserved_len in 22_u8..=32) {
        let layout = PoolLayout::new(&subnets, bits).unwrap();
        let blocks = naive(&subnets, bits);
        prop_assert_eq!(layout.block_count(), blocks.len() as u64);
        for (index, block) in blocks.iter().enumerate() {
            prop_assert_eq!(layout.block(index as u64), Some(*block));
            for offset in [0, block.len() - 1] {
                for address in block.pair(offset).unwrap().addresses() {
                    prop_assert_eq!(layout.index_of(address), Some(index as u64));
                }
            }
        }
        prop_assert_eq!(layout.block(blocks.len() as u64), None);
        let spans: Vec<u64> = (0..subnets.len()).flat_map(|entry| layout.span(entry)).collect();
        prop_assert_eq!(spans, (0..blocks.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!(layout.span(subnets.len()), 0..0);

        let pairs: Vec<_> = blocks.iter().flat_map(|block| (0..block.len()).filter_map(|offset| block.pair(offset))).collect();
        for family in [Family::Ipv4, Family::Ipv6] {
            let count = pairs.iter().filter(|pair| pair.of(family).is_some()).count();
            prop_assert_eq!(layout.address_count(family), count as u128);
        }
        let reserved = Reserved::parse(&[
            format!("10.0.0.{reserved_from}/{reserved_len}"),
            format!("fd00::{reserved_from:x}/120"),
            "10.1.0.0".to_owned(),
        ]).unwrap();
        let count = pairs.iter().filter(|pair| reserved.covers(pair)).count();
        prop_assert_eq!(layout.reserved_count(&reserved), count as u128);
    }

    #[test]
    fn an_index_is_converted_to_its_block_and_back_in_every_valid_pool(
        ipv4_len in 8_u8..=32, ipv6_len in 32_u8..=128, base4 in any::<u32>(), base6 in any::<u128>(), bits in 0_u8..=16, index in any::<u64>(),
    ) {
        let ipv4 = Ipv4Net::new(base4.into(), ipv4_len).unwrap().trunc();
        let ipv6 = Ipv6Net::new(base6.into(), ipv6_len).unwrap().trunc();
        for subnet in [SubnetPair { ipv4: Some(ipv4), ipv6: None }, SubnetPair { ipv4: None, ipv6: Some(ipv6) }] {
            match PoolLayout::new(&[subnet], bits) {
                Err(error) => prop_assert!(subnet.host_bits() < bits, "{}", error),
                Ok(layout) => {
                    prop_assert!(layout.block_count() <= 1 << 40);
                    prop_assert_eq!(layout.block(index).is_some(), index < layout.block_count());
                    let index = index % layout.block_count();
                    let block = layout.block(index).unwrap();
                    prop_assert!(block.is_within(&subnet));
                    prop_assert_eq!(u64::from(block.len()), 1 << bits);
                    for address in block.pair(block.len() - 1).unwrap().addresses() {
                        prop_assert_eq!(layout.index_of(address), Some(index));
                    }
                }
            }
        }
    }
}

#[test]
fn an_ipv6_slash_32_with_5_bits_has_two_to_the_40_blocks() {
    let layout = PoolLayout::new(&[subnet(None, Some("2001:db8::/32"))], 5).unwrap();
    assert_eq!(layout.block_count(), 1 << 40);
    assert_eq!(layout.block(0).unwrap().to_string(), "2001:db8::/123");
    let last = layout.block((1 << 40) - 1).unwrap();
    assert_eq!(last.to_string(), "2001:db8::1fff:ffff:ffe0/123");
    assert_eq!(layout.block(1 << 40), None);
    assert_eq!(layout.index_of("2001:db8::1fff:ffff:ffff".parse().unwrap()), Some((1 << 40) - 1));
    assert_eq!(layout.index_of("2001:db8::2000:0:0".parse().unwrap()), None);
    assert_eq!(layout.index_of("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()), None);
    assert_eq!(layout.address_count(Family::Ipv6), 1 << 45);
    assert_eq!(layout.address_count(Family::Ipv4), 0);
}

#[test]
fn sixty_four_of_the_largest_subnets_fit_an_int64() {
    let subnets: Vec<_> = (0..64).map(|i| subnet(None, Some(&format!("2001:{i:x}::/32")))).collect();
    let layout = PoolLayout::new(&subnets, 0).unwrap();
    assert_eq!(layout.block_count(), 1 << 46);
    assert!(i64::try_from(layout.block_count()).is_ok());
    assert_eq!(layout.block((1 << 46) - 1).unwrap().to_string(), "2001:3f::ff:ffff:ffff/128");
}

#[test]
fn a_slash_8_ends_with_its_last_address() {
    let layout = PoolLayout::new(&[subnet(Some("10.0.0.0/8"), Some("fd00::/104"))], 5).unwrap();
    assert_eq!(layout.block_count(), 1 << 19);
    assert_eq!(layout.block((1 << 19) - 1).unwrap().to_string(), "10.255.255.224/27 and fd00::ff:ffe0/123");
    assert_eq!(layout.index_of("10.255.255.255".parse().unwrap()), Some((1 << 19) - 1));
}

#[test]
fn an_invalid_layout_is_refused_with_a_correction() {
    let refusal = |subnets: &[SubnetPair], bits| PoolLayout::new(subnets, bits).unwrap_err().to_string();
    let small = subnet(Some("10.0.0.0/28"), None);
    assert!(refusal(&[small], 5).contains("set a larger subnet or a smaller blockSizeBits"));
    assert!(refusal(&[small], 17).contains("set blockSizeBits to a number from 0 to 16"));
    assert!(refusal(&[small; 65], 0).contains("create a second pool"));
    assert!(refusal(&[small, subnet(None, Some("fd00::/124"))], 0).contains("the same families"));
    assert!(refusal(&[small, subnet(Some("10.0.0.8/29"), None)], 0).contains("overlap"));
}
