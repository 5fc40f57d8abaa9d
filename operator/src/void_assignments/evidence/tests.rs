//! Tests that the API server's answers become the right evidence.

use bobbin_ipam::void_assignment::PodAbsence;
use serde_json::{Value, json};

use super::*;

fn assignment(changes: &Value) -> PartialAssignment {
    let mut spec = json!({"poolName": "p", "blockName": "p-1", "nodeName": "n1", "ipv4": "10.0.1.1", "podNamespace": "d",
        "podName": "a", "podUID": "u-1"});
    spec.as_object_mut().expect("an object").extend(changes.as_object().cloned().unwrap_or_default());
    let metadata = json!({"name": "10.0.1.1", "uid": "u", "creationTimestamp": "2026-01-01T00:00:20Z"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("it is an assignment")
}

fn block(spec: &Value) -> Lenient<AddressBlock> {
    let metadata = json!({"name": "p-1", "creationTimestamp": "2026-01-01T00:00:10Z"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("it has a name")
}

#[test]
fn each_field_of_a_pod_counts() {
    let assignment = assignment(&json!({}));
    let of = |pod: Value| of_pod(&assignment, Some(&serde_json::from_value(pod).expect("it has a name")));
    let pod = |uid: &str, spec: Value, ip: &str| json!({"metadata": {"name": "a", "uid": uid}, "spec": spec, "status": {"podIPs": [{"ip": ip}]}});
    let here = || json!({"nodeName": "n1"});
    assert_eq!(of(pod("u-1", here(), "10.0.1.1")), PodEvidence::HasAddress);
    assert_eq!(of(pod("u-1", here(), "10.0.1.2")), PodEvidence::OtherAddresses);
    assert_eq!(of(json!({"metadata": {"name": "a", "uid": "u-1"}})), PodEvidence::NoAddressYet);
    assert_eq!(of(pod("u2", here(), "10.0.1.1")), PodEvidence::Gone(PodAbsence::OtherPod));
    assert_eq!(of(pod("u-1", json!({"nodeName": "n2"}), "10.0.1.1")), PodEvidence::Gone(PodAbsence::OtherNode));
    let of_host = json!({"nodeName": "n1", "hostNetwork": true});
    assert_eq!(of(pod("u-1", of_host, "192.0.2.1")), PodEvidence::Gone(PodAbsence::HostNetwork));
    let mut mirror = pod("u9", here(), "10.0.1.1");
    mirror["metadata"]["annotations"] = json!({MIRROR: "x"});
    assert_eq!(of(mirror), PodEvidence::HasAddress);
    assert_eq!(of(json!({"metadata": {"name": "a"}, "spec": 7})), PodEvidence::Unreadable);
    assert_eq!(of_pod(&assignment, None), PodEvidence::Gone(PodAbsence::Absent));
}

#[test]
fn an_assignment_has_the_times_and_names_of_its_object() {
    let assignment = assignment(&json!({"ipv6": "fd00::1"}));
    let facts = facts(&assignment);
    assert_eq!((facts.node, facts.pod()), ("n1", Some(("d", "a"))));
    let addresses: Vec<String> = facts.addresses().map(|address| address.to_string()).collect();
    assert_eq!(addresses, ["10.0.1.1", "fd00::1"]);
    assert_eq!(facts.created.map(|time| time.to_string()).as_deref(), Some("2026-01-01T00:00:20Z"));
}

#[test]
fn a_block_has_its_owner_its_range_and_its_time_unless_it_is_undecodable() {
    let spec = |node: &str| json!({"poolName": "p", "index": 1, "ipv4": "10.0.1.0/24", "nodeName": node});
    for (node, expected) in [("n1", Some("n1")), ("", None)] {
        let BlockEvidence::Block { owner, range, created } = of_block(&block(&spec(node))) else { panic!("a block") };
        assert!(owner.as_deref() == expected && range.is_some(), "{owner:?} {range:?}");
        assert_eq!(created.map(|time| time.to_string()).as_deref(), Some("2026-01-01T00:00:10Z"));
    }
    assert!(matches!(of_block(&block(&json!(7))), BlockEvidence::Unreadable));
}
