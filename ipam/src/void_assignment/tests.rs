//! Tests the decision about an assignment for each kind of block, pod and Node.

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::BlockRange;

const GONE: PodEvidence = PodEvidence::Gone(PodAbsence::Absent);
const TRUSTED: NodeFacts = NodeFacts { is_denied: false, is_gone: false };
const DENIED: NodeFacts = NodeFacts { is_denied: true, is_gone: false };
const DELETED: NodeFacts = NodeFacts { is_denied: false, is_gone: true };

fn at(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

/// An assignment of node n1 that was created at this second.
fn assignment(ipv4: &str, second: i64) -> AssignmentFacts<'_> {
    AssignmentFacts {
        node: "n1",
        ipv4: Some(ipv4),
        ipv6: None,
        pod_namespace: Some("d"),
        pod_name: Some("a"),
        pod_uid: Some("u-1"),
        created: at(second),
    }
}

/// A block with the range 10.0.1.0/24 that was created at second 10.
fn block(owner: Option<&str>) -> BlockEvidence {
    BlockEvidence::Block {
        owner: owner.map(str::to_owned),
        range: BlockRange::parse(Some("10.0.1.0/24"), None).ok(),
        created: at(10),
    }
}

#[test]
fn the_pod_has_the_address_only_if_it_runs_on_the_node_and_lists_it() {
    let here = |uid, addresses: &[&str]| PodFacts {
        uid: Some(uid),
        is_mirror: false,
        node: Some("n1"),
        uses_host_network: false,
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
    };
    let of = |pod: &PodFacts<'_>| PodEvidence::of(&assignment("10.0.1.1", 20), Some(pod));
    assert_eq!(of(&here("u-1", &["10.0.1.1"])), PodEvidence::HasAddress);
    assert_eq!(of(&here("u-1", &["10.0.1.2"])), PodEvidence::OtherAddresses);
    assert_eq!(of(&here("u-1", &[])), PodEvidence::NoAddressYet);
    assert_eq!(of(&PodFacts { node: None, ..here("u-1", &[]) }), PodEvidence::NoAddressYet);
    assert_eq!(of(&here("u2", &["10.0.1.1"])), PodEvidence::Gone(PodAbsence::OtherPod));
    let elsewhere = PodFacts { node: Some("n2"), ..here("u-1", &["10.0.1.1"]) };
    assert_eq!(of(&elsewhere), PodEvidence::Gone(PodAbsence::OtherNode));
    let of_host = PodFacts { uses_host_network: true, ..here("u-1", &["192.0.2.1"]) };
    assert_eq!(of(&of_host), PodEvidence::Gone(PodAbsence::HostNetwork));
    assert_eq!(PodEvidence::of(&assignment("10.0.1.1", 20), None), GONE);
    let mirror = PodFacts { is_mirror: true, ..here("u9", &["10.0.1.1"]) };
    assert_eq!(of(&mirror), PodEvidence::HasAddress);
}

#[test]
fn an_assignment_without_the_uid_of_a_pod_names_no_pod() {
    let named = assignment("10.0.1.1", 20);
    assert_eq!(named.pod(), Some(("d", "a")));
    for unnamed in [
        AssignmentFacts { pod_uid: None, ..named },
        AssignmentFacts { pod_uid: Some(""), ..named },
        AssignmentFacts { pod_name: None, ..named },
        AssignmentFacts { pod_namespace: None, ..named },
    ] {
        assert_eq!(PodEvidence::of(&unnamed, None), PodEvidence::NotNamed);
    }
}

#[test]
fn only_an_address_that_an_older_block_lacks_is_deleted_at_once() {
    let (inside, outside) = (assignment("10.0.1.1", 20), assignment("10.0.2.1", 20));
    for owner in [Some("n1"), Some("n2"), None] {
        for node in [TRUSTED, DENIED, DELETED] {
            assert_eq!(verdict(&outside, &block(owner), GONE, node), Verdict::Forged);
        }
        assert_eq!(verdict(&outside, &block(owner), PodEvidence::NotNamed, TRUSTED), Verdict::Forged);
        assert_eq!(verdict(&outside, &block(owner), PodEvidence::OtherAddresses, TRUSTED), Verdict::Forged);
        for alive in [PodEvidence::HasAddress, PodEvidence::NoAddressYet, PodEvidence::Unreadable] {
            assert_eq!(verdict(&outside, &block(owner), alive, TRUSTED), Verdict::VoidInUse);
        }
    }
    assert_eq!(verdict(&inside, &block(Some("n1")), GONE, DENIED), Verdict::NotVoid);
    assert_eq!(verdict(&inside, &block(Some("n1")), GONE, DELETED), Verdict::NotVoid);
}

#[test]
fn a_block_that_is_not_certainly_older_makes_no_assignment_forged() {
    // The block is as old as the assignment, or younger. So it may have replaced a block that contained the address.
    for not_after in [10, 5] {
        let earlier = assignment("10.0.2.1", not_after);
        for owner in [Some("n1"), Some("n2"), None] {
            assert_eq!(verdict(&earlier, &block(owner), GONE, TRUSTED), Verdict::VoidPodGone);
            assert_eq!(verdict(&earlier, &block(owner), PodEvidence::OtherAddresses, TRUSTED), Verdict::VoidInUse);
        }
    }
    let without_time = AssignmentFacts { created: None, ..assignment("10.0.2.1", 20) };
    assert_eq!(verdict(&without_time, &block(Some("n1")), GONE, TRUSTED), Verdict::VoidPodGone);
}

#[test]
fn an_assignment_of_another_nodes_block_goes_only_with_its_pod() {
    let inside = assignment("10.0.1.1", 20);
    for block in [block(Some("n2")), block(None), BlockEvidence::Absent] {
        assert_eq!(verdict(&inside, &block, GONE, TRUSTED), Verdict::VoidPodGone);
        assert_eq!(verdict(&inside, &block, PodEvidence::NotNamed, TRUSTED), Verdict::VoidInUse);
        assert_eq!(verdict(&inside, &block, PodEvidence::NotNamed, DENIED), Verdict::VoidPodGone);
        for alive in
            [PodEvidence::HasAddress, PodEvidence::OtherAddresses, PodEvidence::NoAddressYet, PodEvidence::Unreadable]
        {
            assert_eq!(verdict(&inside, &block, alive, DENIED), Verdict::VoidInUse);
        }
    }
}

#[test]
fn a_void_assignment_of_a_deleted_node_waits_for_the_grace_period() {
    let inside = assignment("10.0.1.1", 20);
    for pod in [GONE, PodEvidence::NotNamed, PodEvidence::HasAddress, PodEvidence::Unreadable] {
        assert_eq!(verdict(&inside, &BlockEvidence::Absent, pod, DELETED), Verdict::VoidNodeGone);
        let denied = NodeFacts { is_denied: true, ..DELETED };
        assert_eq!(verdict(&inside, &block(Some("n2")), pod, denied), Verdict::VoidNodeGone);
    }
}

#[test]
fn the_assignment_of_an_undecodable_block_is_not_void() {
    for address in ["10.0.1.1", "10.0.2.1"] {
        for node in [TRUSTED, DENIED, DELETED] {
            let assignment = assignment(address, 20);
            assert_eq!(verdict(&assignment, &BlockEvidence::Unreadable, GONE, node), Verdict::NotVoid);
            assert_eq!(why_void(&assignment, &BlockEvidence::Unreadable), None);
        }
    }
}

#[test]
fn an_ipv6_only_assignment_is_forged_in_a_block_without_ipv6() {
    let only_ipv6 = AssignmentFacts { ipv4: None, ipv6: Some("fd00::1"), ..assignment("", 20) };
    assert_eq!(verdict(&only_ipv6, &block(Some("n1")), GONE, TRUSTED), Verdict::Forged);
    assert_eq!(verdict(&only_ipv6, &block(Some("n1")), PodEvidence::HasAddress, TRUSTED), Verdict::VoidInUse);
    assert_eq!(verdict(&only_ipv6, &BlockEvidence::Absent, PodEvidence::NotNamed, TRUSTED), Verdict::VoidInUse);
}

#[test]
fn the_reason_names_the_owner_or_the_address() {
    let (inside, outside) = (assignment("10.0.1.1", 20), assignment("10.0.2.1", 20));
    assert_eq!(why_void(&inside, &block(Some("n1"))), None);
    assert_eq!(why_void(&inside, &BlockEvidence::Absent), Some(VoidReason::BlockAbsent));
    assert_eq!(why_void(&inside, &block(None)), Some(VoidReason::OtherOwner(None)));
    assert_eq!(why_void(&outside, &block(Some("n2"))), Some(VoidReason::OtherOwner(Some("n2"))));
    let address = "10.0.2.1".parse().expect("an address");
    assert_eq!(why_void(&outside, &block(Some("n1"))), Some(VoidReason::Outside(address)));
    let unparsable = BlockEvidence::Block { owner: Some("n1".to_owned()), range: None, created: at(10) };
    assert_eq!(why_void(&outside, &unparsable), None);
}

#[test]
fn a_static_pod_without_a_mirror_pod_may_run_so_only_a_forged_assignment_or_a_denied_node_loses_it() {
    let of_static = AssignmentFacts { pod_uid: Some("3f2a"), ..assignment("10.0.1.1", 20) };
    let pod = PodEvidence::of(&of_static, None);
    assert_eq!(pod, PodEvidence::NoMirrorPod);
    let node = NodeFacts::default();
    assert_eq!(verdict(&of_static, &BlockEvidence::Absent, pod, node), Verdict::VoidInUse);
    let denied = NodeFacts { is_denied: true, ..node };
    assert_eq!(verdict(&of_static, &BlockEvidence::Absent, pod, denied), Verdict::VoidPodGone);
    let of_another = PodEvidence::of(&assignment("10.0.1.1", 20), None);
    assert_eq!(verdict(&of_static, &BlockEvidence::Absent, of_another, node), Verdict::VoidPodGone);
}
