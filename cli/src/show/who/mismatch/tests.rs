//! Tests why an IPAssignment may be wrong, and what happens next.

use serde_json::{Value, json};

use super::*;

fn assignment(changes: &Value) -> IPAssignment {
    let mut spec = json!({"poolName": "p", "blockName": "p-0", "nodeName": "n1", "ipv4": "10.0.0.1", "containerID": "c",
        "ifName": "eth0", "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "b", "podNamespace": "shop", "podName": "web",
        "podUID": "u-1"});
    spec.as_object_mut().expect("an object").extend(changes.as_object().cloned().unwrap_or_default());
    let metadata = json!({"name": "10.0.0.1", "creationTimestamp": "2026-01-01T00:00:00Z"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("an assignment")
}

fn block(range: &str, node: Option<&str>) -> Read<AddressBlock> {
    let metadata = json!({"name": "p-0", "creationTimestamp": "2025-12-01T00:00:00Z"});
    let spec = json!({"poolName": "p", "index": 0, "ipv4": range, "nodeName": node});
    Read::Present(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a block"))
}

fn own() -> Read<AddressBlock> {
    block("10.0.0.0/30", Some("n1"))
}

fn pod(uid: &str, node: &str, address: Option<&str>) -> Read<Pod> {
    let status = address.map(|address| json!({"podIP": address, "podIPs": [{"ip": address}]}));
    let pod = json!({"metadata": {"name": "web", "namespace": "shop", "uid": uid},
        "spec": {"containers": [], "nodeName": node}, "status": status});
    Read::Present(serde_json::from_value(pod).expect("a pod"))
}

fn right() -> Read<Pod> {
    pod("u-1", "n1", Some("10.0.0.1"))
}

/// The reason and the text about the assignment with these changes.
fn said(changes: &Value, block: &Read<AddressBlock>, pod: &Read<Pod>) -> Option<(Reason, String)> {
    mismatch(&assignment(changes), block, pod, true).map(|one| (one.reason, format!("{}; {}", one.why, one.next)))
}

#[test]
fn an_assignment_with_its_pod_and_its_block_has_no_mismatch() {
    let none = json!({});
    for pod in [right(), pod("u-1", "n1", None), Read::Unknown] {
        assert_eq!(said(&none, &own(), &pod), None);
    }
    assert_eq!(said(&none, &Read::Unknown, &right()), None);
    assert_eq!(said(&json!({"podName": null}), &own(), &Read::Absent), None);
    // The status has only the addresses of the first interface.
    assert_eq!(said(&json!({"ifName": "net1"}), &own(), &pod("u-1", "n1", Some("10.9.0.1"))), None);
}

#[test]
fn an_assignment_whose_pod_is_gone_is_released_by_the_agent() {
    for (pod, why) in [
        (Read::Absent, "pod shop/web does not exist"),
        (pod("new", "n1", None), "is another pod of the same name"),
        (pod("u-1", "n2", Some("10.0.0.1")), "is on node n2"),
    ] {
        let (reason, text) = said(&json!({}), &own(), &pod).expect("a mismatch");
        assert!(reason == Reason::PodGone && text.contains(why), "{text}");
        assert!(text.contains("the agent of node n1 releases the address"), "{text}");
    }
}

#[test]
fn the_mirror_of_a_static_pod_has_another_uid() {
    let mirror = json!({"metadata": {"name": "web", "uid": "m", "annotations": {"kubernetes.io/config.mirror": "u-1"}},
        "spec": {"containers": [], "nodeName": "n1"}});
    let mirror = Read::Present(serde_json::from_value(mirror).expect("a pod"));
    assert_eq!(said(&json!({}), &own(), &mirror), None);
}

#[test]
fn a_pod_that_reports_another_address_makes_its_assignment_suspicious() {
    let (reason, text) = said(&json!({}), &own(), &pod("u-1", "n1", Some("10.9.0.1"))).expect("a mismatch");
    assert!(reason == Reason::OtherAddress && text.contains("(10.9.0.1)") && text.contains("bobbin check"), "{text}");
}

#[test]
fn a_void_assignment_is_deleted_by_the_rule_of_the_operator() {
    let foreign = || block("10.0.0.0/30", Some("n2"));
    let elsewhere = || block("10.7.0.0/30", Some("n1"));
    let none = json!({});
    let next = |changes: &Value, block: Read<AddressBlock>, pod: Read<Pod>| {
        let (reason, text) = said(changes, &block, &pod).expect("a mismatch");
        assert!(reason == Reason::Void && text.contains("is void, because"), "{text}");
        text
    };
    let after_two_checks =
        "pod shop/web does not exist, so the operator deletes the IPAssignment after two checks, 15 minutes apart";
    let delete_pod = "the operator deletes the IPAssignment when the pod is gone; delete the pod, so that";
    assert!(next(&none, foreign(), Read::Absent).ends_with(after_two_checks));
    assert!(next(&none, Read::Absent, Read::Absent).ends_with(after_two_checks));
    assert!(next(&none, foreign(), right()).contains(delete_pod));
    let unknown = next(&none, foreign(), Read::Unknown);
    assert!(
        unknown.contains("but only if the pod is gone") && unknown.contains("kubectl get pod web -n shop"),
        "{unknown}"
    );
    let forged = next(&none, elsewhere(), Read::Absent);
    assert!(forged.contains("deletes the IPAssignment at once, because the IPAssignment is forged"), "{forged}");
    assert!(next(&none, elsewhere(), right()).contains(delete_pod));
    for (unnamed, why) in
        [(json!({"podName": null}), "names no pod"), (json!({"podUID": null}), "has no UID of its pod")]
    {
        let unnamed = next(&unnamed, foreign(), Read::Absent);
        assert!(unnamed.contains("only if it denies node n1") && unnamed.contains(why), "{unnamed}");
        assert!(unnamed.ends_with("kubectl delete ipassignment 10.0.0.1"), "{unnamed}");
    }
}

#[test]
fn no_deletion_is_promised_that_the_operator_would_not_make() {
    let next = |assignment: IPAssignment, block: &Read<AddressBlock>, pod: &Read<Pod>, node_exists: bool| {
        mismatch(&assignment, block, pod, node_exists).expect("a mismatch").next
    };
    let mut as_old = assignment(&json!({}));
    as_old.metadata.creation_timestamp = serde_json::from_value(json!("2025-12-01T00:00:00Z")).expect("a time");
    let elsewhere = block("10.7.0.0/30", Some("n1"));
    let text = next(as_old, &elsewhere, &Read::Absent, true);
    assert!(text.contains("after two checks") && !text.contains("forged"), "{text}");
    let text = next(assignment(&json!({})), &Read::Absent, &Read::Absent, false);
    assert!(text.contains("after the grace period") && text.ends_with("because Node n1 does not exist"), "{text}");
    // For the operator, each address in the status is in use, even if the pod has no sandbox.
    let mut ended = pod("u-1", "n1", Some("10.0.0.1"));
    if let Read::Present(pod) = &mut ended {
        let conditions = json!([{"type": "PodReadyToStartContainers", "status": "False"}]);
        let status = pod.status.as_mut().expect("a status");
        status.conditions = serde_json::from_value(conditions).expect("conditions");
    }
    let text = next(assignment(&json!({})), &elsewhere, &ended, true);
    assert!(text.contains("when the pod is gone"), "{text}");
}

#[test]
fn an_assignment_of_an_unknown_block_is_not_void() {
    for pod in [right(), Read::Unknown] {
        assert_eq!(said(&json!({"ipv4": "10.9.0.1"}), &Read::Unknown, &Read::Unknown), None);
        assert_eq!(said(&json!({}), &Read::Unknown, &pod), None);
    }
}

#[test]
fn without_the_uid_of_its_pod_only_the_del_releases_an_assignment() {
    let (reason, text) = said(&json!({"podUID": null}), &own(), &Read::Absent).expect("a mismatch");
    assert!(reason == Reason::PodGone && text.starts_with("pod shop/web does not exist"), "{text}");
    assert!(text.ends_with("after the DEL of the container"), "{text}");
    assert_eq!(said(&json!({"podUID": null}), &own(), &right()), None);
}
