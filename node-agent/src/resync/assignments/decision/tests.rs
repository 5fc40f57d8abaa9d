//! Tests the comparison of assignments and attachments.

use bobbin_ipam::IpPair;

use super::*;
use crate::state::{AttachmentPhase, PodRef};

fn attachment(number: u8) -> Attachment {
    Attachment {
        key: AttachmentKey::new(format!("c{number}"), "eth0"),
        pair: IpPair { ipv4: Some([10, 64, 0, number].into()), ipv6: None },
        block: "default-0".to_owned(),
        pool: "default".to_owned(),
        pod: PodRef::default(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        boot_id: "now".to_owned(),
        assignment_uid: None,
        phase: AttachmentPhase::Live,
        netns: None,
        pod_seen: false,
        network: None,
        links: None,
    }
}

fn assignment(container: &str, number: u8, boot: &str) -> AssignmentInfo {
    AssignmentInfo {
        readable: true,
        name: format!("10.64.0.{number}"),
        uid: format!("uid-{number}"),
        block_name: "default-0".to_owned(),
        node_name: "n1".to_owned(),
        ipv4: Some(format!("10.64.0.{number}")),
        ipv6: None,
        key: AttachmentKey::new(container, "eth0"),
        pod: PodRef::default(),
        boot_id: boot.to_owned(),
    }
}

fn blocks() -> BTreeMap<String, BlockRange> {
    [("default-0".to_owned(), BlockRange::parse(Some("10.64.0.0/27"), None).unwrap())].into()
}

#[test]
fn an_assignment_with_its_attachment_is_no_mismatch() {
    assert_eq!(compare(&[assignment("c1", 1, "now")], &[attachment(1)], &blocks(), "now"), []);
}

#[test]
fn a_live_attachment_keeps_its_assignment_of_an_earlier_boot() {
    assert_eq!(compare(&[assignment("c1", 1, "before")], &[attachment(1)], &blocks(), "now"), []);
}

#[test]
fn an_assignment_without_attachment_is_orphaned_or_of_an_earlier_boot() {
    let assignments = [assignment("c1", 1, "now"), assignment("c2", 2, "before")];
    let found = compare(&assignments, &[], &blocks(), "now");
    assert_eq!(found, [Mismatch::Orphaned(&assignments[0]), Mismatch::EarlierBoot(&assignments[1])]);
}

#[test]
fn an_attachment_with_another_address_does_not_keep_the_old_assignment() {
    let assignments = [assignment("c1", 7, "now"), assignment("c1", 1, "now")];
    assert_eq!(compare(&assignments, &[attachment(1)], &blocks(), "now"), [Mismatch::Orphaned(&assignments[0])]);
}

#[test]
fn only_a_live_attachment_can_lack_its_assignment() {
    let adding = Attachment { phase: AttachmentPhase::Adding, ..attachment(2) };
    let deleting = Attachment { phase: AttachmentPhase::Deleting, ..attachment(3) };
    let found = compare(&[], &[attachment(1), adding, deleting], &blocks(), "now");
    assert_eq!(found, [Mismatch::Missing(Box::new(attachment(1)))]);
}

#[test]
fn an_assignment_outside_the_nodes_blocks_is_void() {
    let void = |name: &str, is_owner| Mismatch::Void { name: name.to_owned(), block: "default-0".to_owned(), is_owner };
    let first = [assignment("c1", 1, "now")];
    let found = compare(&first, &[attachment(1)], &BTreeMap::new(), "now");
    assert_eq!(found, [void("10.64.0.1", false)]);
    let outside = [assignment("c40", 40, "now")];
    let found = compare(&outside, &[attachment(40)], &blocks(), "now");
    assert_eq!(found, [void("10.64.0.40", true)]);
    let name = "fd00-0000-0000-0000-0000-0000-0000-0001";
    let only_ipv6 = [AssignmentInfo {
        name: name.to_owned(),
        ipv4: None,
        ipv6: Some("fd00::1".to_owned()),
        ..assignment("c1", 1, "now")
    }];
    let pair = IpPair { ipv4: None, ipv6: Some("fd00::1".parse().unwrap()) };
    let found = compare(&only_ipv6, &[Attachment { pair, ..attachment(1) }], &blocks(), "now");
    assert_eq!(found, [void(name, true)], "the block has no IPv6 addresses");
}
