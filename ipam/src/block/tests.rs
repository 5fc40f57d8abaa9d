//! Tests that the address at each offset of a block is the first address plus the offset.

use proptest::prelude::*;

use super::*;

#[test]
fn the_first_and_the_last_address_of_a_block_are_used() {
    let block = BlockRange::parse(Some("10.0.0.32/27"), Some("fd00::20/123")).unwrap();
    assert_eq!(block.len(), 32);
    assert_eq!(block.pair(0).unwrap().to_string(), "10.0.0.32 and fd00::20");
    assert_eq!(block.pair(31).unwrap().to_string(), "10.0.0.63 and fd00::3f");
    assert_eq!(block.pair(32), None);
}

#[test]
fn a_range_of_more_than_65536_addresses_is_refused() {
    assert_eq!(
        BlockRange::parse(Some("10.0.0.0/15"), None).unwrap_err().to_string(),
        "10.0.0.0/15 has 2^17 addresses, but a block has at most 2^16: use a longer prefix"
    );
}

proptest! {
    #[test]
    fn an_offset_is_converted_to_its_pair_and_back(
        bits in 0_u8..=16, base4 in any::<u32>(), base6 in any::<u128>(), families in 0..3, offset in any::<u32>(),
    ) {
        let ipv4 = (families != 1).then(|| Ipv4Net::new(base4.into(), 32 - bits).unwrap().trunc());
        let ipv6 = (families != 0).then(|| Ipv6Net::new(base6.into(), 128 - bits).unwrap().trunc());
        let block = BlockRange { ipv4, ipv6 };
        prop_assert_eq!(block.len(), 1 << bits);
        let offset = offset % block.len();
        let pair = block.pair(offset).unwrap();
        prop_assert_eq!(pair.ipv4, ipv4.map(|net| net.hosts_all(offset)));
        prop_assert_eq!(pair.ipv6.map(u128::from), ipv6.map(|net| u128::from(net.network()) + u128::from(offset)));
        for address in pair.addresses() {
            prop_assert_eq!(block.offset_of(address), Some(offset));
        }
        prop_assert!(BlockRange::from(pair).is_within(&block.as_subnet()));
        prop_assert!(BlockRange::from(pair).overlaps(&block));
        prop_assert_eq!(block.pair(block.len()), None);
    }

    #[test]
    fn an_address_outside_the_block_has_no_offset(bits in 0_u8..=8, base in any::<u32>(), other in any::<u32>()) {
        let net = Ipv4Net::new(base.into(), 32 - bits).unwrap().trunc();
        let block = BlockRange { ipv4: Some(net), ipv6: None };
        let other = Ipv4Addr::from(other);
        prop_assert_eq!(block.offset_of(other.into()).is_some(), net.contains(&other));
        prop_assert_eq!(block.offset_of(other.to_ipv6_mapped().into()), None);
    }
}

/// Computes the address at the offset `n` naively: the network address plus `n`.
trait Nth {
    fn hosts_all(&self, n: u32) -> Ipv4Addr;
}

impl Nth for Ipv4Net {
    fn hosts_all(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network()) + n)
    }
}
