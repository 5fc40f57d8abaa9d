use super::*;

/// Nodes already have links with the names and MAC addresses that this test expects. So later versions of the agent
/// must compute the same names and MAC addresses.
#[test]
fn names_and_mac_addresses_never_change() {
    let long = "0123456789abcdef".repeat(4);
    for (key, name, host_mac, container_mac) in [
        (
            AttachmentKey::new("c1", "eth0"),
            "bob9b551fd36581",
            [0xb2, 0x0b, 0xfe, 0x2c, 0x61, 0xa9],
            [0x9a, 0x9b, 0xd6, 0x38, 0x5d, 0x22],
        ),
        (
            AttachmentKey::new(long, "net1"),
            "bobfedd4aeca43e",
            [0xea, 0x3f, 0xce, 0xd1, 0x79, 0xe6],
            [0xd6, 0xcb, 0x80, 0xf6, 0x85, 0x91],
        ),
    ] {
        assert_eq!(host_name(&Settings::default(), &key), name, "{key}");
        assert_eq!(macs(&key), (host_mac, container_mac), "{key}");
    }
    assert_eq!(alias(&AttachmentKey::new("c1", "eth0")), "bobbin:c1/eth0");
    assert_eq!(container_alias("c1"), "bobbin:c1");
}

#[test]
fn the_alias_of_a_container_names_that_container() {
    for id in ["c1", "0123abc.d_e-f"] {
        assert_eq!(container_of_alias(&container_alias(id)), Some(id));
    }
}
