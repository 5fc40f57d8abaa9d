//! Tests the decision about an assignment for each kind of block and pod.

use serde_json::{Value, json};

use super::*;

/// An assignment of node n1 that was created at this second.
fn assignment(ipv4: &str, second: &str) -> PartialAssignment {
    serde_json::from_value(json!({
        "metadata": {"name": ipv4, "uid": "u", "creationTimestamp": format!("2026-01-01T00:00:{second}Z")},
        "spec": {"poolName": "p", "blockName": "p-1", "nodeName": "n1", "ipv4": ipv4, "podNamespace": "d", "podName": "a", "podUID": "u1"},
    }))
    .expect("it is an assignment")
}

/// A block with the range 10.0.1.0/24 that was created at second 10.
fn block(owner: Option<&str>) -> BlockEvidence {
    let block = json!({
        "metadata": {"name": "p-1", "creationTimestamp": "2026-01-01T00:00:10Z"},
        "spec": {"poolName": "p", "index": 1, "ipv4": "10.0.1.0/24", "nodeName": owner},
    });
    BlockEvidence::of(&serde_json::from_value(block).expect("it is a block"))
}

fn pod(spec: &Value, uid: &str, ips: &[&str]) -> Lenient<PartialPod> {
    let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    serde_json::from_value(json!({"metadata": {"name": "a", "uid": uid}, "spec": spec, "status": {"podIPs": ips}}))
        .expect("it is a pod")
}

#[test]
fn the_pod_has_the_address_only_if_it_runs_on_the_node_and_lists_it() {
    let assignment = assignment("10.0.1.1", "20");
    let of = |pod: Lenient<PartialPod>| PodEvidence::of(&assignment, Some(&pod));
    let here = || json!({"nodeName": "n1"});
    assert_eq!(of(pod(&here(), "u1", &["10.0.1.1"])), PodEvidence::HasAddress);
    assert_eq!(of(pod(&here(), "u1", &["10.0.1.2"])), PodEvidence::OtherAddresses);
    assert_eq!(of(pod(&here(), "u1", &[])), PodEvidence::NoAddressYet);
    assert_eq!(of(pod(&here(), "u2", &["10.0.1.1"])), PodEvidence::Gone);
    assert_eq!(of(pod(&json!({"nodeName": "n2"}), "u1", &["10.0.1.1"])), PodEvidence::Gone);
    assert_eq!(of(pod(&json!({"nodeName": "n1", "hostNetwork": true}), "u1", &["192.0.2.1"])), PodEvidence::Gone);
    assert_eq!(PodEvidence::of(&assignment, None), PodEvidence::Gone);
    let mut mirror = json!({"metadata": {"name": "a", "uid": "u9", "annotations": {MIRROR: "x"}}, "spec": here()});
    mirror["status"] = json!({"podIPs": [{"ip": "10.0.1.1"}]});
    assert_eq!(of(serde_json::from_value(mirror).expect("it is a pod")), PodEvidence::HasAddress);
    let broken = json!({"metadata": {"name": "a"}, "spec": 7});
    assert_eq!(of(serde_json::from_value(broken).expect("it has a name")), PodEvidence::Unreadable);
}

#[test]
fn only_an_address_that_an_older_block_lacks_is_deleted_at_once() {
    let (inside, outside) = (assignment("10.0.1.1", "20"), assignment("10.0.2.1", "20"));
    for owner in [Some("n1"), Some("n2"), None] {
        assert_eq!(verdict(&outside, &block(owner), PodEvidence::Gone, false), Verdict::Forged);
        assert_eq!(verdict(&outside, &block(owner), PodEvidence::NotNamed, false), Verdict::Forged);
        assert_eq!(verdict(&outside, &block(owner), PodEvidence::OtherAddresses, false), Verdict::Forged);
        for alive in [PodEvidence::HasAddress, PodEvidence::NoAddressYet, PodEvidence::Unreadable] {
            assert_eq!(verdict(&outside, &block(owner), alive, false), Verdict::VoidInUse);
        }
        // This block may have replaced an earlier block that contained the address.
        for not_after in ["10", "05"] {
            let earlier = assignment("10.0.2.1", not_after);
            assert_eq!(verdict(&earlier, &block(owner), PodEvidence::Gone, false), Verdict::VoidPodGone);
            assert_eq!(verdict(&earlier, &block(owner), PodEvidence::OtherAddresses, false), Verdict::VoidInUse);
        }
    }
    assert_eq!(verdict(&inside, &block(Some("n1")), PodEvidence::Gone, true), Verdict::NotVoid);
}

#[test]
fn an_assignment_of_another_nodes_block_goes_only_with_its_pod() {
    let inside = assignment("10.0.1.1", "20");
    for block in [block(Some("n2")), block(None), BlockEvidence::Absent] {
        assert_eq!(verdict(&inside, &block, PodEvidence::Gone, false), Verdict::VoidPodGone);
        assert_eq!(verdict(&inside, &block, PodEvidence::NotNamed, false), Verdict::VoidInUse);
        assert_eq!(verdict(&inside, &block, PodEvidence::NotNamed, true), Verdict::VoidPodGone);
        for alive in
            [PodEvidence::HasAddress, PodEvidence::OtherAddresses, PodEvidence::NoAddressYet, PodEvidence::Unreadable]
        {
            assert_eq!(verdict(&inside, &block, alive, true), Verdict::VoidInUse);
        }
    }
    assert_eq!(verdict(&inside, &BlockEvidence::Unreadable, PodEvidence::Gone, true), Verdict::NotVoid);
}

#[test]
fn an_ipv6_only_assignment_is_forged_in_a_block_without_ipv6() {
    let mut only_ipv6 = assignment("fd00-0000-0000-0000-0000-0000-0000-0001", "20");
    (only_ipv6.spec.ipv4, only_ipv6.spec.ipv6) = (None, Some("fd00::1".to_owned()));
    assert_eq!(verdict(&only_ipv6, &block(Some("n1")), PodEvidence::Gone, false), Verdict::Forged);
    assert_eq!(verdict(&only_ipv6, &block(Some("n1")), PodEvidence::HasAddress, false), Verdict::VoidInUse);
    assert_eq!(verdict(&only_ipv6, &BlockEvidence::Absent, PodEvidence::NotNamed, false), Verdict::VoidInUse);
}
