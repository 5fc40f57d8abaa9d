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
