//! Tests that subnet entries are parsed, and which entries overlap.

use proptest::prelude::*;

use super::*;

fn refusal(ipv4: Option<&str>, ipv6: Option<&str>) -> String {
    SubnetPair::parse(ipv4, ipv6).unwrap_err().to_string()
}

#[test]
fn an_invalid_entry_is_refused_with_a_correction() {
    assert_eq!(refusal(None, None), "a subnet entry names neither an IPv4 nor an IPv6 CIDR: give at least one");
    assert_eq!(refusal(Some("10.0.0.5/24"), None), "10.0.0.5/24 has host bits set: write 10.0.0.0/24");
    assert_eq!(refusal(Some("fd00::/112"), None), "\"fd00::/112\" is not an IPv4 CIDR: write it like 10.64.0.0/16");
    assert_eq!(refusal(None, Some("fd00::1")), "\"fd00::1\" is not an IPv6 CIDR: write it like fd00:64::/112");
    assert_eq!(
        refusal(Some("10.0.0.0/24"), Some("fd00::/112")),
        "10.0.0.0/24 and fd00::/112 differ in size (8 and 16 host bits): give both the same number of host bits"
    );
}

#[test]
fn subnets_overlap_if_they_overlap_in_either_family() {
    let parse = |ipv4, ipv6| SubnetPair::parse(ipv4, ipv6).unwrap();
    let a = parse(Some("10.0.0.0/24"), Some("fd00::/120"));
    assert!(a.overlaps(&parse(Some("10.0.0.128/25"), None)));
    assert!(a.overlaps(&parse(Some("10.9.0.0/24"), Some("fd00::/120"))));
    assert!(!a.overlaps(&parse(Some("10.0.1.0/24"), Some("fd00::100/120"))));
    assert!(!parse(Some("10.0.0.0/24"), None).overlaps(&parse(None, Some("fd00::/120"))));
}

proptest! {
    #[test]
    fn subnets_overlap_exactly_if_they_share_an_address(a in any::<u8>(), a_len in 24_u8..=32, b in any::<u8>(), b_len in 24_u8..=32) {
        let net = |host, len| ipnet::Ipv4Net::new([10, 0, 0, host].into(), len).unwrap().trunc();
        let pair = |net| SubnetPair { ipv4: Some(net), ipv6: None };
        let (a, b) = (net(a, a_len), net(b, b_len));
        let shared = (0..=255).any(|host| [a, b].iter().all(|net| net.contains(&std::net::Ipv4Addr::from([10, 0, 0, host]))));
        prop_assert_eq!(pair(a).overlaps(&pair(b)), shared);
        prop_assert_eq!(pair(b).overlaps(&pair(a)), shared);
    }

    #[test]
    fn the_number_of_host_bits_is_the_same_in_either_family(bits in 0_u8..=24) {
        let ipv4 = format!("0.0.0.0/{}", 32 - bits);
        let ipv6 = format!("::/{}", 128 - bits);
        for (ipv4, ipv6) in [(Some(ipv4.as_str()), None), (None, Some(ipv6.as_str())), (Some(ipv4.as_str()), Some(ipv6.as_str()))] {
            prop_assert_eq!(SubnetPair::parse(ipv4, ipv6).unwrap().host_bits(), bits);
        }
    }
}
