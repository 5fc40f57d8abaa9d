//! Tests how the agent combines the attachments in the checkpoint with the attachments in the kernel. The checkpoint or the kernel may lack
//! some attachments.

use super::*;

fn pair(last: u8) -> IpPair {
    IpPair { ipv4: Some([10, 0, 0, last].into()), ipv6: Some(format!("fd00::{last:x}").parse().unwrap()) }
}

fn kept(id: &str, last: u8) -> Attachment {
    Attachment {
        key: AttachmentKey::new(id, "eth0"),
        pair: pair(last),
        block: "p-0".to_owned(),
        pool: "p".to_owned(),
        pod: PodRef { namespace: "a".to_owned(), name: "b".to_owned(), uid: "c".to_owned() },
        created_at: Timestamp::UNIX_EPOCH,
        boot_id: "boot".to_owned(),
        assignment_uid: Some("u".to_owned()),
        phase: AttachmentPhase::Live,
        netns: None,
        pod_seen: false,
        network: None,
        links: None,
    }
}

fn link(id: &str, pair: IpPair) -> ObservedLink {
    ObservedLink { key: AttachmentKey::new(id, "eth0"), host_if: "bob1".to_owned(), host_index: 7, pair }
}

fn of(kept: Vec<Attachment>, links: Vec<ObservedLink>) -> Vec<(Attachment, Source)> {
    union(kept, links, "boot", Timestamp::UNIX_EPOCH)
}

#[test]
fn a_checkpointed_attachment_is_kept_with_or_without_its_link() {
    let expected = [(kept("x", 1), Source::Checkpoint)];
    assert_eq!(of(vec![kept("x", 1)], vec![link("x", pair(1))]), expected);
    assert_eq!(of(vec![kept("x", 1)], vec![]), expected);
    assert_eq!(of(vec![kept("x", 1)], vec![link("x", IpPair::default())]), expected);
}

#[test]
fn an_attachment_that_only_the_kernel_has_is_in_use() {
    let found = of(vec![], vec![link("x", pair(1))]);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0.pair, found[0].0.phase, found[0].1), (pair(1), AttachmentPhase::Live, Source::Kernel));
    assert_eq!(found[0].0.assignment_uid, None);
}

#[test]
fn a_pair_with_one_route_keeps_both_addresses() {
    let half = IpPair { ipv4: None, ..pair(1) };
    assert_eq!(of(vec![kept("x", 1)], vec![link("x", half)]), [(kept("x", 1), Source::Checkpoint)]);
}

#[test]
fn the_kernel_wins_if_the_addresses_differ() {
    let found = of(vec![kept("x", 1)], vec![link("x", pair(2))]);
    assert_eq!((found[0].0.pair, found[0].1), (pair(2), Source::Kernel));
}

#[test]
fn an_address_is_held_after_a_crash_at_any_byte_of_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.keep(&kept("x", 1)).unwrap();
    let file =
        std::fs::read_dir(dir.path().join(crate::state::layout::ATTACHMENTS)).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    for end in 0..=whole.len() {
        std::fs::write(&file, &whole[..end]).unwrap();
        let found = of(checkpoint.load().attachments, vec![link("x", pair(1))]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.pair, pair(1));
    }
}
