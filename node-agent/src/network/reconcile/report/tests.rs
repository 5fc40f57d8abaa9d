use bobbin_datapath::DriftSubject;
use bobbin_ipam::IpPair;

use super::*;
use crate::state::{AttachmentPhase, PodRef};

fn finding(kind: DriftKind, what: &str) -> Drift {
    Drift { kind, subject: DriftSubject::Node, attachment: None, what: what.to_owned() }
}

fn attachment(id: &str) -> Attachment {
    Attachment {
        key: AttachmentKey::new(id, "eth0"),
        pair: IpPair { ipv4: Some([10, 77, 1, 1].into()), ipv6: None },
        block: "default-1".to_owned(),
        pool: "default".to_owned(),
        pod: PodRef { namespace: "op".to_owned(), name: "vx".to_owned(), uid: "u".to_owned() },
        created_at: jiff::Timestamp::UNIX_EPOCH,
        boot_id: "b".to_owned(),
        assignment_uid: None,
        phase: AttachmentPhase::Live,
        netns: None,
        pod_seen: false,
        network: None,
        links: None,
    }
}

#[test]
fn only_what_another_program_changed_is_called_a_repair() {
    let findings = vec![
        finding(DriftKind::Applied, "added the missing route to another node's block"),
        finding(DriftKind::Repaired, "added the rule"),
    ];
    let report = Report::of(findings, &mut Reported::default());
    assert_eq!(report.applied.len(), 1);
    assert_eq!(report.repaired, ["added the rule"]);
    let sentence = report.repaired_sentence().unwrap();
    assert_eq!(sentence, "another program changed the node's network, and the agent repaired it: added the rule");
    assert_eq!(Report::default().repaired_sentence(), None);
}

#[test]
fn a_failed_repair_is_reported_once_until_it_changes() {
    let mut reported = Reported::default();
    let wrong = |what: &str| vec![finding(DriftKind::NotRepairable, what), finding(DriftKind::NotRepairable, what)];
    assert_eq!(Report::of(wrong("a"), &mut reported).not_repairable, ["a"]);
    assert_eq!(Report::of(wrong("a"), &mut reported), Report::default());
    assert_eq!(Report::of(wrong("b"), &mut reported).not_repairable, ["b"]);
    assert_eq!(Report::of(Vec::new(), &mut reported), Report::default());
    assert_eq!(Report::of(wrong("b"), &mut reported).not_repairable, ["b"]);
}

#[test]
fn a_broken_attachment_is_reported_once_and_again_after_it_was_whole() {
    let (mut reported, broken) = (Reported::default(), [attachment("c1"), attachment("c2")]);
    assert_eq!(reported.newly_broken(&broken[..1]), [&broken[0]]);
    assert_eq!(reported.newly_broken(&broken), [&broken[1]]);
    assert!(reported.newly_broken(&[]).is_empty());
    assert_eq!(reported.newly_broken(&broken[..1]), [&broken[0]]);
}

#[test]
fn the_event_names_pod_address_link_and_remedy() {
    assert_eq!(
        lost_interface(&attachment("c1"), "bob5382"),
        "pod op/vx (10.77.1.1) has lost its interface bob5382 and has no network; delete the pod, so that a new pod gets a network"
    );
}

#[test]
fn an_event_names_a_few_repairs_and_counts_the_rest() {
    let repaired = (0..7).map(|n| finding(DriftKind::Repaired, &format!("r{n}"))).collect();
    let sentence = Report::of(repaired, &mut Reported::default()).repaired_sentence().unwrap();
    assert!(sentence.ends_with("r0; r1; r2; r3; r4; and 2 more; see the agent's log"), "{sentence}");
}
