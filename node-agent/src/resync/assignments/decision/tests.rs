//! Records and attachments, compared.

use bobbin_ipam::IpPair;

use super::*;
use crate::state::{Phase, PodRef};

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
        phase: Phase::Live,
        netns: None,
        pod_seen: false,
        network: None,
        links: None,
    }
}

fn record(container: &str, number: u8, boot: &str) -> AssignmentInfo {
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
fn what_agrees_is_no_finding() {
    assert_eq!(judge(&[record("c1", 1, "now")], &[attachment(1)], &blocks(), "now"), []);
}

#[test]
fn a_living_attachment_keeps_its_record_whatever_boot_that_names() {
    assert_eq!(judge(&[record("c1", 1, "before")], &[attachment(1)], &blocks(), "now"), []);
}

#[test]
fn a_record_without_attachment_is_suspect_in_this_boot_and_free_at_once_of_another() {
    let records = [record("c1", 1, "now"), record("c2", 2, "before")];
    let found = judge(&records, &[], &blocks(), "now");
    assert_eq!(found, [Finding::NobodyLives(&records[0]), Finding::OtherBoot(&records[1])]);
}

#[test]
fn an_attachment_that_moved_to_another_address_does_not_keep_the_old_record() {
    let records = [record("c1", 7, "now"), record("c1", 1, "now")];
    assert_eq!(judge(&records, &[attachment(1)], &blocks(), "now"), [Finding::NobodyLives(&records[0])]);
}

#[test]
fn only_an_attachment_that_add_answered_can_lack_a_record() {
    let adding = Attachment { phase: Phase::Adding, ..attachment(2) };
    let deleting = Attachment { phase: Phase::Deleting, ..attachment(3) };
    let found = judge(&[], &[attachment(1), adding, deleting], &blocks(), "now");
    assert_eq!(found, [Finding::Unrecorded(Box::new(attachment(1)))]);
}

#[test]
fn a_record_outside_our_blocks_is_void_and_told() {
    let void = |name: &str| Finding::Void { name: name.to_owned(), block: "default-0".to_owned() };
    assert_eq!(judge(&[record("c1", 1, "now")], &[attachment(1)], &BTreeMap::new(), "now"), [void("10.64.0.1")]);
    assert_eq!(judge(&[record("c40", 40, "now")], &[attachment(40)], &blocks(), "now"), [void("10.64.0.40")]);
}
