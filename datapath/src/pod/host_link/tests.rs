use rtnetlink::packet_route::link::InfoKind;

use super::*;

fn key() -> AttachmentKey {
    AttachmentKey::new("c1", "eth0")
}

fn own() -> Link {
    let name = host_name(&Settings::default(), &key());
    Link {
        index: 7,
        name,
        mac: macs(&key()).0.to_vec(),
        alias: alias(&key()),
        kind: Some(InfoKind::Veth),
        ..Link::default()
    }
}

fn found(links: &[Link], routed: &[u32]) -> Option<u32> {
    LinkIndex::of(links).find(&Settings::default(), &key(), |index| routed.contains(&index)).map(|link| link.index)
}

#[test]
fn a_link_is_found_by_alias_then_name_then_mac_then_route() {
    let other =
        Link { index: 8, name: "vethx".to_owned(), mac: vec![2; 6], kind: Some(InfoKind::Veth), ..Link::default() };
    let renamed = |link: Link| Link { name: "moved".to_owned(), ..link };
    let cleared = |link: Link| Link { alias: String::new(), ..link };
    let readdressed = |link: Link| Link { mac: vec![4; 6], ..link };
    for changed in [
        own(),
        renamed(own()),
        cleared(own()),
        readdressed(cleared(own())),
        renamed(cleared(own())),
        readdressed(renamed(own())),
    ] {
        assert_eq!(found(&[other.clone(), changed.clone()], &[]), Some(7), "{changed:?}");
    }
    let unrecognisable = readdressed(renamed(cleared(own())));
    assert_eq!(found(&[other.clone(), unrecognisable.clone()], &[]), None);
    assert_eq!(found(&[other, unrecognisable], &[7]), Some(7));
}

#[test]
fn the_alias_decides_before_everything_else() {
    let impostor = Link { index: 9, alias: String::new(), ..own() };
    let labelled = Link { name: "moved".to_owned(), mac: vec![4; 6], ..own() };
    assert_eq!(found(&[impostor, labelled], &[9]), Some(7));
    let twin = Link { index: 9, name: "twin".to_owned(), ..own() };
    assert_eq!(found(&[twin, own()], &[]), Some(7));
}

#[test]
fn another_attachments_link_never_matches_and_another_programs_only_with_the_right_mac() {
    let anothers = Link { alias: "bobbin:c2/eth0".to_owned(), ..own() };
    assert_eq!(found(&[anothers], &[7]), None);
    let foreign = Link { alias: "uplink of vm 3".to_owned(), ..own() };
    assert_eq!(found(std::slice::from_ref(&foreign), &[]), Some(7));
    assert_eq!(found(&[Link { mac: vec![4; 6], ..foreign }], &[]), None);
    assert_eq!(found(&[Link { kind: Some(InfoKind::Bridge), ..own() }], &[7]), None);
}
