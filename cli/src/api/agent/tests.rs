//! Tests which pod of a node the commands ask.

use serde_json::json;

use super::*;

fn pod(name: &str, node: &str, ready: &str, deleting: bool) -> AgentPod {
    let deleted = deleting.then_some("2026-01-01T00:00:00Z");
    let object = json!({
        "metadata": {"name": name, "namespace": "b", "deletionTimestamp": deleted},
        "spec": {"nodeName": node, "containers": [{"name": "agent", "ports": [{"name": "health", "containerPort": 9402}]}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}
    });
    AgentPod::of(&serde_json::from_value(object).expect("a pod"))
}

#[test]
fn a_node_with_two_pods_is_asked_at_the_ready_pod_that_stays() {
    let pods = vec![
        pod("old", "n1", "True", true),
        pod("new", "n1", "True", false),
        pod("starting", "n1", "False", false),
        pod("other", "n2", "False", false),
        pod("pending", "", "False", false),
    ];
    let chosen = best(pods);
    let names: Vec<_> = chosen.iter().map(|pod| (pod.node.as_str(), pod.name.as_str(), pod.port)).collect();
    assert_eq!(names, [("n1", "new", Some(9402)), ("n2", "other", Some(9402))]);
}

#[test]
fn only_a_pod_of_a_daemon_set_is_an_agent() {
    let owned = |kind: &str, version: &str, controller: bool| {
        let owner = json!({"kind": kind, "apiVersion": version, "name": "a", "uid": "u", "controller": controller});
        let pod = json!({"metadata": {"name": "a", "ownerReferences": [owner]}});
        is_of_daemon_set(&serde_json::from_value(pod).expect("a pod"))
    };
    assert!(owned("DaemonSet", "apps/v1", true));
    assert!(!owned("DaemonSet", "apps/v1", false) && !owned("DaemonSet", "example.com/v1", true));
    assert!(!owned("ReplicaSet", "apps/v1", true) && !is_of_daemon_set(&Pod::default()));
}
