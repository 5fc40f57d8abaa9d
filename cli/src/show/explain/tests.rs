use serde_json::json;

use super::*;

fn pod(value: serde_json::Value) -> Pod {
    serde_json::from_value(value).expect("a pod")
}

#[test]
fn pods_of_the_host_network_ended_and_unscheduled_pods_need_no_address() {
    let because =
        |spec: serde_json::Value, phase: &str| no_need(&pod(json!({"spec": spec, "status": {"phase": phase}})));
    let containers = json!([]);
    assert!(
        because(json!({"containers": containers, "nodeName": "n", "hostNetwork": true}), "Running")
            .is_some_and(|why| why.contains("hostNetwork"))
    );
    assert!(
        because(json!({"containers": containers, "nodeName": "n"}), "Succeeded")
            .is_some_and(|why| why.contains("ended"))
    );
    assert!(because(json!({"containers": containers}), "Pending").is_some_and(|why| why.contains("scheduled")));
    assert_eq!(because(json!({"containers": containers, "nodeName": "n"}), "Pending"), None);
}

#[test]
fn only_a_pod_that_is_not_being_deleted_has_unrecorded_addresses() {
    let status = json!({"podIPs": [{"ip": "10.0.0.1"}]});
    assert_eq!(unrecorded(&pod(json!({"status": status}))), [IpAddr::from([10, 0, 0, 1])]);
    let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": status});
    assert!(unrecorded(&pod(ending)).is_empty());
}

#[test]
fn a_missing_pod_may_be_in_another_namespace_unless_the_user_named_it() {
    assert!(missing("default", false, "web").contains("add -n NAMESPACE"));
    assert!(missing("shop", true, "web").ends_with("kubectl -n shop get pods"));
}
