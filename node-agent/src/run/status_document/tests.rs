//! Tests the status document of a node with blocks and attachments in different states.

use bobbin_agent_status::InstallationStatus;
use bobbin_ipam::{AttachmentKey, BlockRange, IpPair};
use serde_json::json;

use super::*;
use crate::cluster::freshness::ProofGeneration;
use crate::state::{PodRef, ReleaseStage};

const CLOCK: Clock = Clock { wall: Timestamp::UNIX_EPOCH, boot: BootTime(Duration::from_secs(100)) };

fn attachment(container: &str, phase: AttachmentPhase) -> Attachment {
    Attachment {
        key: AttachmentKey::new(container, "eth0"),
        pair: IpPair { ipv4: Some([10, 0, 0, 1].into()), ipv6: None },
        block: "p-0".to_owned(),
        pool: "p".to_owned(),
        pod: PodRef { namespace: "shop".to_owned(), name: "web".to_owned(), uid: "u".to_owned() },
        pod_seen: false,
        created_at: Timestamp::UNIX_EPOCH,
        boot_id: "boot".to_owned(),
        assignment_uid: None,
        phase,
        netns: Some("/run/netns/secret".to_owned()),
        network: None,
        links: None,
    }
}

fn block(state: BlockState, proof: Proof) -> BlockSnapshot {
    let range = BlockRange::parse(Some("10.0.0.0/30"), None).ok();
    BlockSnapshot {
        name: "p-0".to_owned(),
        pool: "p".to_owned(),
        range,
        state,
        since: None,
        proof,
        assigned: 1,
        cooling: 2,
        free: 1,
    }
}

fn document(state: StateSnapshot, broken: &[&str]) -> AgentStatus {
    let broken = broken.iter().map(|id| (AttachmentKey::new(*id, "eth0"), Timestamp::UNIX_EPOCH)).collect();
    let activity = Activity { broken, installation: Some(InstallationStatus::default()), ..Activity::default() };
    let (node, node_uid, api) = ("n1".to_owned(), Some("uid".to_owned()), ApiStatus::default());
    let proves = |proof, _| proof == Proof::Confirmed(ProofGeneration::default());
    build(Inputs { node, node_uid, mode: Mode::Run, clock: CLOCK, state, activity, api }, proves)
}

#[test]
fn an_attachment_is_broken_only_while_it_runs() {
    let attachments = vec![
        attachment("a", AttachmentPhase::Adding),
        attachment("b", AttachmentPhase::Live),
        attachment("c", AttachmentPhase::Live),
        attachment("d", AttachmentPhase::Deleting),
    ];
    let status = document(StateSnapshot { blocks: Vec::new(), attachments }, &["c", "d"]);
    let found: Vec<_> = status.attachments.iter().map(|each| each.state).collect();
    assert_eq!(
        found,
        [AttachmentState::Adding, AttachmentState::Running, AttachmentState::Broken, AttachmentState::Ending]
    );
}

#[test]
fn a_block_is_exported_once_it_serves_and_until_its_route_is_withdrawn() {
    let exporting = BlockState::Exporting { since: BootTime(Duration::from_secs(90)), not_before: CLOCK.boot };
    let withdrawing = BlockState::Releasing { stage: ReleaseStage::WithdrawingRoute, doubted: false };
    let proof = Proof::Confirmed(ProofGeneration::default());
    let blocks = [BlockState::CLAIMING, exporting, BlockState::Serving, withdrawing, BlockState::Lost];
    let mut blocks = blocks.map(|state| block(state, proof)).to_vec();
    blocks[1].since = Some(BootTime(Duration::from_secs(90)));
    let status = document(StateSnapshot { blocks, attachments: Vec::new() }, &[]);
    let exported: Vec<_> = status.blocks.iter().map(|each| each.exported).collect();
    assert_eq!(exported, [false, false, true, false, false]);
    assert_eq!(status.blocks[1].since, Timestamp::from_second(-10).ok());
    assert!(status.blocks.iter().all(|each| each.proven));
}

#[test]
fn a_block_has_the_time_at_which_it_entered_its_state() {
    let lost = BlockSnapshot { since: Some(BootTime(Duration::from_secs(70))), ..block(BlockState::Lost, Proof::None) };
    let blocks = vec![lost, block(BlockState::Lost, Proof::None)];
    let status = document(StateSnapshot { blocks, attachments: Vec::new() }, &[]);
    let since: Vec<_> = status.blocks.iter().map(|each| each.since).collect();
    assert_eq!(since, [Timestamp::from_second(-30).ok(), None]);
}

#[test]
fn the_state_of_a_block_has_the_same_name_as_in_the_metrics() {
    let doubted = BlockState::Doubted { before: SettledState::Serving, doubts: 0 };
    for state in [BlockState::CLAIMING, BlockState::Serving, BlockState::Retiring, doubted, BlockState::Lost] {
        assert_eq!(phase(state).name(), state.name());
    }
}

#[test]
fn the_document_has_these_fields_and_no_others() {
    let blocks = vec![block(BlockState::Serving, Proof::None)];
    let state = StateSnapshot { blocks, attachments: vec![attachment("c", AttachmentPhase::Live)] };
    let text = serde_json::to_value(document(state, &[])).unwrap();
    let attachment = json!({"containerID": "c", "interface": "eth0", "podNamespace": "shop", "podName": "web", "podUID": "u",
        "pool": "p", "block": "p-0", "ipv4": "10.0.0.1", "state": "running", "createdAt": "1970-01-01T00:00:00Z"});
    let block = json!({"name": "p-0", "pool": "p", "ipv4": "10.0.0.0/30", "state": "serving", "proven": false, "exported": true,
        "assigned": 1, "cooling": 2, "free": 1});
    assert_eq!((&text["attachments"][0], &text["blocks"][0]), (&attachment, &block));
    let names: Vec<&str> = text.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "api",
        "attachments",
        "blocks",
        "errors",
        "installation",
        "mode",
        "network",
        "node",
        "nodeUID",
        "resync",
        "time",
        "version",
    ];
    assert_eq!(names.into_iter().collect::<std::collections::BTreeSet<_>>(), expected.into());
}
