//! Tests how the agent selects a pool from cached objects. The crate `ipam` tests the rule itself.

use bobbin_ipam::pool_selection::{SelectionSource, UnusableReason};
use serde_json::{Value, json};

use super::*;
use crate::cluster::IgnoredAnnotations;

fn pool(name: &str, spec: &Value, ready: bool) -> AddressPool {
    let mut whole = json!({"subnets": [{"ipv4": "10.64.0.0/16"}]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let status = if ready { "True" } else { "False" };
    serde_json::from_value(json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name}, "spec": whole,
        "status": {"conditions": [{
            "type": "Ready", "status": status, "reason": "Overlaps", "message": "overlaps pool \"x\"",
            "lastTransitionTime": "2026-11-21T00:00:00Z"
        }]}
    }))
    .unwrap()
}

fn namespace(pool: Option<&str>, labels: &[(&str, &str)]) -> NamespaceInfo {
    NamespaceInfo {
        name: String::new(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        pool: pool.map(ToOwned::to_owned),
        ignored: IgnoredAnnotations::default(),
    }
}

fn pod(name: &str, pool: Option<&str>) -> PodInfo {
    PodInfo {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        kubelet_uid: None,
        pool: pool.map(ToOwned::to_owned),
        ignored: IgnoredAnnotations::default(),
        terminating: false,
    }
}

fn reference(name: &str) -> PodRef {
    PodRef { namespace: "shop".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") }
}

fn node() -> NodeInfo {
    let labels = [("zone".to_owned(), "a".to_owned())].into();
    NodeInfo { name: "n1".to_owned(), uid: "u".to_owned(), labels, ..NodeInfo::default() }
}

fn cluster(namespaces: Vec<(&str, NamespaceInfo)>, pods: Vec<PodInfo>) -> ClusterCache {
    let admits = |labels: Value| json!({"matchLabels": labels});
    let pools = vec![
        pool("default", &json!({}), true),
        pool("team", &json!({"namespaceSelector": admits(json!({"team": "red"}))}), true),
        pool("far", &json!({"nodeSelector": admits(json!({"zone": "b"}))}), true),
        pool("drain", &json!({"draining": true}), true),
        pool("broken", &json!({}), false),
    ];
    ClusterCache::of(Some(node()), pools, namespaces, pods)
}

async fn choose(cluster: &ClusterCache, pod: &str) -> Result<PoolSelection, SelectPoolError> {
    select_pool_for_pod(cluster, &reference(pod), UnknownPod::Refuse).await.map(|chosen| chosen.selection)
}

#[tokio::test]
async fn a_call_without_a_pod_gets_the_pool_default() {
    let selection =
        select_pool_for_pod(&cluster(vec![], vec![]), &PodRef::default(), UnknownPod::Refuse).await.unwrap().selection;
    assert_eq!((selection.pool.as_str(), selection.source), ("default", SelectionSource::Default));
}

#[tokio::test]
async fn each_refusal_names_the_pod_and_the_node() {
    let pods = ["far", "drain", "broken", "team", "nowhere", "No Where"].map(|name| pod(name, Some(name))).to_vec();
    let cluster = cluster(vec![("shop", namespace(None, &[]))], pods);
    for (name, reason) in [
        ("far", UnusableReason::NodeNotAdmitted),
        ("drain", UnusableReason::Draining),
        ("broken", UnusableReason::NotReady(Some("overlaps pool \"x\"".to_owned()))),
        ("team", UnusableReason::NamespaceNotAdmitted),
        ("nowhere", UnusableReason::Missing),
        ("No Where", UnusableReason::InvalidName),
    ] {
        let error = choose(&cluster, name).await.unwrap_err();
        let cni_error = error.to_cni();
        assert_eq!(cni_error.code, code::POOL_REFUSED, "{cni_error}");
        assert!(cni_error.msg.contains(&format!("pod shop/{name} on node n1")), "{cni_error}");
        let SelectPoolError::Refused { refusal, .. } = error else { panic!("{name}: {error}") };
        assert_eq!(refusal.reason, reason);
    }
}

#[tokio::test]
async fn a_namespaces_labels_and_annotation_count() {
    let cluster = cluster(vec![("shop", namespace(Some("team"), &[("team", "red")]))], vec![pod("web", None)]);
    let selection = choose(&cluster, "web").await.unwrap();
    assert_eq!((selection.pool.as_str(), selection.source), ("team", SelectionSource::NamespaceAnnotation));
    assert_eq!(expected_pool(&cluster, &pod("next", None)).as_deref(), Some("team"));
}

#[tokio::test]
async fn without_the_api_server_an_unknown_pod_is_refused_unless_it_is_static_or_the_administrator_wants_it() {
    let cluster = cluster(vec![("shop", namespace(Some("team"), &[("team", "red")]))], vec![]);
    assert!(matches!(choose(&cluster, "web").await, Err(SelectPoolError::Unreachable(_))));
    let wanted = select_pool_for_pod(&cluster, &reference("web"), UnknownPod::Default).await.unwrap();
    assert_eq!(wanted.selection.pool, "team");
    let of_file = PodRef { uid: "0123456789abcdef0123456789abcdef".to_owned(), ..reference("web") };
    let of_file = select_pool_for_pod(&cluster, &of_file, UnknownPod::Refuse).await.unwrap();
    assert_eq!((of_file.selection.pool.as_str(), of_file.pod_seen), ("team", false));
}

#[tokio::test]
async fn a_pod_that_the_watch_shows_is_seen_and_a_static_pods_mirror_is_not() {
    let mirror = PodInfo { kubelet_uid: Some("hash".to_owned()), ..pod("static", None) };
    let cluster = cluster(vec![("shop", namespace(None, &[]))], vec![pod("web", None), mirror]);
    let web = select_pool_for_pod(&cluster, &reference("web"), UnknownPod::Refuse).await.unwrap();
    assert_eq!((web.pod, web.pod_seen), (reference("web"), true));
    let of_kubelet = PodRef { uid: "hash".to_owned(), ..reference("static") };
    let of_static = select_pool_for_pod(&cluster, &of_kubelet, UnknownPod::Refuse).await.unwrap();
    assert_eq!((of_static.pod, of_static.pod_seen), (of_kubelet, false));
}

#[test]
fn the_uid_of_a_pod_that_the_runtime_named_without_one_is_the_one_that_kubelet_uses() {
    let without = PodRef { uid: String::new(), ..reference("web") };
    assert_eq!(with_kubelet_uid(&without, &pod("web", None)).uid, "uid-web");
    let mirror = PodInfo { kubelet_uid: Some("hash".to_owned()), ..pod("web", None) };
    assert_eq!(with_kubelet_uid(&without, &mirror).uid, "hash");
    assert_eq!(with_kubelet_uid(&reference("web"), &mirror).uid, "uid-web");
}

#[tokio::test]
async fn without_a_uid_and_without_the_api_server_the_last_pod_of_that_name_names_the_pool_but_no_uid() {
    let without = PodRef { uid: String::new(), ..reference("web") };
    let labels = [("team", "red")];
    let cluster = cluster(vec![("shop", namespace(None, &labels))], vec![pod("web", Some("team"))]);
    let chosen = select_pool_for_pod(&cluster, &without, UnknownPod::Refuse).await.unwrap();
    assert_eq!((chosen.selection.pool.as_str(), chosen.selection.source), ("team", SelectionSource::PodAnnotation));
    assert_eq!((chosen.pod, chosen.pod_seen), (without, false));
}

#[test]
fn only_accepted_subnets_remain() {
    let mut pool = pool("p", &json!({"subnets": [{"ipv4": "10.64.0.0/16"}, {"ipv4": "10.65.0.0/16"}]}), true);
    let entry = |ipv4: &str, state: &str| json!({"ipv4": ipv4, "state": state, "since": "2026-01-01T00:00:00.000000Z"});
    pool.status.as_mut().unwrap().accepted_subnets =
        serde_json::from_value(json!([entry("10.64.0.0/16", "Accepted"), entry("10.65.0.0/16", "Pending")])).unwrap();
    let left = with_accepted_subnets(&pool).spec.subnets;
    assert_eq!(left.iter().map(|entry| entry.ipv4.as_deref()).collect::<Vec<_>>(), [Some("10.64.0.0/16")]);
}
