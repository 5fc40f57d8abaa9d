//! Tests that the agent can read its checkpoint after a crash, a reboot or an update.

use std::time::Duration;

use super::*;
use crate::state::{AttachmentPhase, BlockState, PodRef, ReleaseStage};

fn attachment(id: &str) -> Attachment {
    Attachment {
        key: AttachmentKey { container_id: id.to_owned(), if_name: "eth0".to_owned() },
        pair: IpPair { ipv4: Some("10.0.0.5".parse().unwrap()), ipv6: Some("fd00::5".parse().unwrap()) },
        block: "p-0".to_owned(),
        pool: "p".to_owned(),
        pod: PodRef { namespace: "a".to_owned(), name: "b".to_owned(), uid: "c".to_owned() },
        created_at: jiff::Timestamp::UNIX_EPOCH,
        boot_id: "boot".to_owned(),
        assignment_uid: Some("u".to_owned()),
        phase: AttachmentPhase::Live,
        netns: Some("/run/netns/x".to_owned()),
        pod_seen: false,
        network: None,
        links: None,
    }
}

#[test]
fn a_kept_attachment_is_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert!(checkpoint.begin_boot("boot").unwrap());
    checkpoint.keep(&attachment("x")).unwrap();
    let kept = checkpoint.load();
    assert_eq!(kept.attachments, [attachment("x")]);
    assert!(kept.unreadable.is_empty());
    assert!(!checkpoint.begin_boot("boot").unwrap());
    assert_eq!(checkpoint.load().attachments.len(), 1);
}

#[test]
fn a_file_cut_at_any_byte_is_reported_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.keep(&attachment("x")).unwrap();
    let path = checkpoint.attachment(&attachment("x").key);
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let kept = checkpoint.load();
        assert!(kept.attachments.is_empty());
        assert_eq!(kept.unreadable, std::slice::from_ref(&path));
        assert!(path.exists());
    }
}

#[test]
fn a_temporary_file_is_not_loaded_and_the_next_start_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.keep(&attachment("x")).unwrap();
    fs::write(dir.path().join(layout::ATTACHMENTS).join(".bobbin-y.tmp"), b"{").unwrap();
    let kept = checkpoint.load();
    assert_eq!(kept.attachments.len(), 1);
    assert!(kept.unreadable.is_empty());
    Checkpoint::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join(layout::ATTACHMENTS)).unwrap().count(), 1);
}

#[test]
fn a_failed_write_leaves_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    fs::create_dir(checkpoint.attachment(&attachment("x").key)).unwrap();
    checkpoint.keep(&attachment("x")).unwrap_err();
    assert_eq!(fs::read_dir(dir.path().join(layout::ATTACHMENTS)).unwrap().count(), 1);
}

#[test]
fn the_address_of_a_forgotten_attachment_cools_down() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.keep(&attachment("x")).unwrap();
    let since = BootTime(Duration::from_secs(7));
    checkpoint.forget(&attachment("x").key, attachment("x").pair, since).unwrap();
    checkpoint.forget(&attachment("x").key, attachment("x").pair, since).unwrap();
    let kept = checkpoint.load();
    assert!(kept.attachments.is_empty());
    assert_eq!(kept.cooling, [CoolingAddress { pair: attachment("x").pair, since }]);
    checkpoint.prune_cooling(BootTime(Duration::from_secs(8)));
    assert!(checkpoint.load().cooling.is_empty());
}

#[test]
fn a_new_boot_starts_without_attachments() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.begin_boot("one").unwrap();
    checkpoint.keep(&attachment("x")).unwrap();
    std::fs::write(dir.path().join(layout::READY_MARKER), b"").unwrap();
    assert!(checkpoint.begin_boot("two").unwrap());
    assert!(checkpoint.load().attachments.is_empty());
    assert!(!dir.path().join(layout::READY_MARKER).exists());
}

#[test]
fn an_agent_takes_over_the_checkpoint_of_version_0_1_0() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let pair = r#"{"ipv4":"10.0.0.5","ipv6":null}"#;
    put("resting/10.0.0.5.json", &format!(r#"{{"pair":{pair},"since":{{"secs":7,"nanos":0}}}}"#));
    put("passed-over/10.0.0.5.json", &format!(r#"{{"pair":{pair},"name":"10.0.0.5","by":"pod a/b of node n2"}}"#));
    put(
        "blocks.json",
        r#"[{"block":{"name":"p-0","uid":"u","resource_version":"1","pool":"p","index":0,"range":{"ipv4":"10.0.0.0/27","ipv6":null},"free_since":null},
            "state":{"Releasing":{"stage":"DeletingRecords","doubted":true}},"records_seen":true}]"#,
    );
    for _ in 0..2 {
        let kept = Checkpoint::open(dir.path()).unwrap().load();
        assert_eq!(kept.cooling.iter().map(|one| one.since.0.as_secs()).collect::<Vec<_>>(), [7]);
        assert_eq!(kept.conflicts.iter().map(|one| one.by.as_str()).collect::<Vec<_>>(), ["pod a/b of node n2"]);
        let block = kept.blocks.first().expect("the checkpoint must contain the block");
        let stage = ReleaseStage::DeletingAssignments;
        assert!(block.state == BlockState::Releasing { stage, doubted: true } && block.assignments_listed);
        assert!(!dir.path().join("resting").exists() && !dir.path().join("passed-over").exists());
    }
}
