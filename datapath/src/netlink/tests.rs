//! Fuzz tests of every decoder of kernel messages, and tests that decode the requests that Bobbin sends.

use std::net::IpAddr;

use bobbin_ipam::AttachmentKey;
use ipnet::IpNet;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::libc;
use proptest::prelude::*;
use rtnetlink::packet_core::{DefaultNla, Emitable, NLM_F_ACK_TLVS, NLM_F_CAPPED, NetlinkHeader, NetlinkSerializable};
use rtnetlink::packet_route::link::InfoKind;

use super::error::HEADER_LEN;
use super::link::{Link, VethSpec};
use super::neighbour::Neighbour;
use super::route::Route;
use super::rule::Rule;
use super::socket::{Reply, Request, replies};
use super::{address, anti_spoofing, error, link, neighbour, netns_id, route, rule};
use crate::names;
use crate::settings::Settings;

/// Passes the bytes to every decoder of kernel messages. No decoder may panic, whatever the bytes are.
fn read_everything(bytes: &[u8]) {
    let settings = Settings::default();
    drop(Link::decode(bytes));
    drop(address::decode(bytes));
    drop(Route::decode(bytes));
    drop(route::decode_table(bytes));
    drop(Rule::decode(bytes));
    drop(Neighbour::decode(bytes));
    drop(neighbour::decode_permanent(bytes));
    let mut header = NetlinkHeader::default();
    header.message_type = libc::RTM_NEWNSID;
    netns_id::read(&[Reply { header, payload: bytes.to_vec() }]);
    anti_spoofing::is_hooked(bytes);
    anti_spoofing::expressions_of(bytes);
    anti_spoofing::is_about_table(bytes, &settings.nft_table);
    for flags in [0, NLM_F_CAPPED] {
        header.flags = NLM_F_ACK_TLVS | flags;
        error::explanation(header, bytes);
    }
    for reply in replies(bytes) {
        assert!(reply.payload.len() + HEADER_LEN <= bytes.len());
    }
}

fn bytes_of<M: NetlinkSerializable>(request: &Request<M>) -> Vec<u8> {
    let mut bytes = vec![0; request.message.buffer_len()];
    request.message.serialize(&mut bytes);
    bytes
}

fn payload_of<M: NetlinkSerializable>(request: &Request<M>) -> Vec<u8> {
    bytes_of(request)[HEADER_LEN..].to_vec()
}

fn pair(netns: &std::fs::File) -> Request {
    use std::os::fd::AsFd;
    link::create_pair(&VethSpec {
        host_if: "bob0123456789ab",
        host_mac: [2, 0, 0, 0, 0, 1],
        container_if: "eth0",
        container_mac: [2, 0, 0, 0, 0, 2],
        mtu: 1400,
        group: 116,
        netns: netns.as_fd(),
    })
}

fn some_routes() -> Vec<Route> {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    vec![
        Route::to_pod(116, 30, address("10.64.0.5"), 7, Some(address("192.0.2.1"))),
        Route::to_pod(1160, 30, address("fd00:64::5"), 7, None),
        Route::over(119, 30, net("10.64.0.0/27"), Some(link::LOOPBACK), None),
        Route::over(254, 31, net("fd00:64::/123"), None, Some(address("2001:db8::2"))),
        Route::over(254, 30, net("0.0.0.0/0"), Some(3), Some(address("169.254.1.1"))),
        Route::blackhole(116, 30, net("10.64.0.0/27")),
    ]
}

/// One message of each kind that a decoder reads, in the form that the kernel sends.
fn real_messages() -> Vec<Vec<u8>> {
    let settings = Settings::default();
    let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
    let mut messages = vec![payload_of(&pair(&netns)), payload_of(&link::label(7, "bobbin:c1/eth0", 116))];
    messages.extend(some_routes().iter().map(|route| payload_of(&route.add())));
    messages.extend(rule::wanted(&settings, true, true).map(|rule| payload_of(&rule.add())));
    for own in ["10.64.0.5", "fd00:64::5"] {
        let own = own.parse().unwrap();
        messages.push(payload_of(&Neighbour::permanent(7, own, [2, 0, 0, 0, 0, 2]).set()));
        messages.push(payload_of(&address::add(7, own)));
    }
    messages.push(payload_of(&netns_id::exists(3)));
    for message in [anti_spoofing::rule(&settings), anti_spoofing::chain(&settings)] {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
        messages.push(payload_of(&Request::new("test", 0, NetfilterMessage::new(header, message))));
    }
    messages
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_or_decoded(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    /// Attributes with nearly valid lengths and kinds reach deeper into the decoders than arbitrary bytes do.
    #[test]
    fn arbitrary_attributes_are_refused_or_decoded(
        header in prop::collection::vec(any::<u8>(), 16),
        attributes in prop::collection::vec((0u16..70, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        header_len in prop::sample::select(vec![4usize, 8, 12, 16]),
    ) {
        let mut bytes = header[..header_len].to_vec();
        for (kind, value) in attributes {
            let attribute = DefaultNla::new(kind, value);
            let start = bytes.len();
            bytes.resize(start + attribute.buffer_len(), 0);
            attribute.emit(&mut bytes[start..]);
        }
        read_everything(&bytes);
    }

    #[test]
    fn changed_and_truncated_messages_are_refused_or_decoded(
        message in prop::sample::select(real_messages()),
        length in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = message;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_everything(&bytes);
        bytes.truncate(length.index(bytes.len() + 1));
        read_everything(&bytes);
    }

    #[test]
    fn a_changed_datagram_is_split_without_a_loop_or_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut datagram: Vec<u8> = some_routes().iter().flat_map(|route| bytes_of(&route.add())).collect();
        for (at, value) in changes {
            let at = at.index(datagram.len());
            datagram[at] = value;
        }
        prop_assert!(replies(&datagram).len() <= datagram.len() / HEADER_LEN);
    }
}

#[test]
fn what_is_sent_reads_back_the_same() {
    for route in some_routes() {
        assert_eq!(Route::decode(&payload_of(&route.add())).unwrap(), Some(route), "{route}");
    }
    for rule in rule::wanted(&Settings::default(), true, true) {
        assert_eq!(Rule::decode(&payload_of(&rule.add())).unwrap(), rule);
    }
    let own: IpAddr = "fd00:64::5".parse().unwrap();
    let neighbour = Neighbour::permanent(7, own, [2, 0, 0, 0, 0, 2]);
    assert_eq!(Neighbour::decode(&payload_of(&neighbour.set())).unwrap(), Some(neighbour));
    assert_eq!(address::decode(&payload_of(&address::add(7, own))).unwrap(), Some((7, own)));
    let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
    let created = Link::decode(&payload_of(&pair(&netns))).unwrap();
    assert!(created.is_veth() && created.name == "bob0123456789ab" && created.mac == [2, 0, 0, 0, 0, 1]);
    assert!(created.mtu == 1400 && created.group == 116 && !created.has_no_link_local);
    let key = AttachmentKey::new("c1", "eth0");
    let labelled = Link::decode(&payload_of(&link::label(7, &names::alias(&key), 116))).unwrap();
    assert!(labelled.index == 7 && labelled.alias == "bobbin:c1/eth0" && labelled.has_no_link_local);
}

#[test]
fn the_filter_that_is_written_is_the_one_that_is_looked_for() {
    let settings = Settings::default();
    let header = || NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    let rule = Request::new("test", 0, NetfilterMessage::new(header(), anti_spoofing::rule(&settings)));
    assert_eq!(anti_spoofing::expressions_of(&payload_of(&rule)), anti_spoofing::wanted(&settings));
    let chain = Request::new("test", 0, NetfilterMessage::new(header(), anti_spoofing::chain(&settings)));
    assert!(anti_spoofing::is_hooked(&payload_of(&chain)));
    assert!(anti_spoofing::is_about_table(&payload_of(&chain), "bobbin"));
}

#[test]
fn an_unusual_link_of_another_program_does_not_make_a_list_unreadable() {
    let attributes = [
        DefaultNla::new(libc::IFLA_IFNAME, b"odd\xff\0".to_vec()),
        DefaultNla::new(libc::IFLA_IFALIAS, b"\xfe\xff".to_vec()),
        DefaultNla::new(libc::IFLA_STATS64, vec![1]),
        DefaultNla::new(
            libc::IFLA_LINKINFO,
            [nla(libc::IFLA_INFO_DATA, &[9]), nla(libc::IFLA_INFO_KIND, b"new\0")].concat(),
        ),
    ];
    let mut message = vec![0; HEADER_LEN];
    message[4] = 7;
    message.extend(attributes.iter().flat_map(|attribute| {
        let mut bytes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut bytes);
        bytes
    }));
    let link = Link::decode(&message).unwrap();
    assert_eq!((link.index, link.kind), (7, Some(InfoKind::Other("new".to_owned()))));
    assert!(link.name.starts_with("odd"));
}

#[test]
fn a_truncated_attribute_makes_a_link_unreadable() {
    let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
    let mut message = payload_of(&pair(&netns));
    message.truncate(message.len() - 1);
    assert!(Link::decode(&message).is_err());
}

fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}
