//! Tests the cluster cache without an API server: the identity of pods, and what the agent knows after a restart.

use std::time::Duration;

use bobbin_api_client::PartialNode;
use bobbin_crds::AddressPoolSpec;
use kube::core::ObjectMeta;
use serde_json::json;

use super::*;

fn pod(metadata: serde_json::Value) -> PodInfo {
    PodInfo::of(&serde_json::from_value::<ObjectMeta>(metadata).unwrap())
}

fn freshness() -> Arc<FreshnessTracker> {
    Arc::new(FreshnessTracker::new(crate::args::timing::Times::new(1.0, Duration::from_mins(5)), None))
}

fn node() -> Lenient<PartialNode> {
    serde_json::from_value(json!({
        "metadata": {"name": "n1", "uid": "u1", "labels": {"zone": "a"}},
        "status": {"addresses": [
            {"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "192.0.2.2"}
        ]}
    }))
    .unwrap()
}

#[test]
fn a_nodes_first_internal_address_of_each_family_counts() {
    let info = NodeInfo::of(&node()).unwrap();
    assert_eq!(info.ipv4, Some([192, 0, 2, 1].into()));
    assert_eq!(info.ipv6, Some("fd00::1".parse().unwrap()));
    assert_eq!((info.name.as_str(), info.uid.as_str()), ("n1", "u1"));
}

#[test]
fn a_pod_of_the_same_name_is_another_pod_and_a_mirror_pod_goes_by_kubelets_uid() {
    let web = pod(json!({"namespace": "a", "name": "web-0", "uid": "u1", "annotations": {"bobbin.dev/pool": ""}}));
    assert!(web.is("u1") && !web.is("u0"));
    assert_eq!(web.pool, None, "an empty annotation counts as absent");
    let mirror = pod(json!({
        "namespace": "a", "name": "static-n1", "uid": "u2",
        "annotations": {"kubernetes.io/config.hash": "hash", "bobbin.dev/pool": "special"}
    }));
    assert!(mirror.is("hash") && mirror.is("u2"));
    assert_eq!(mirror.pool.as_deref(), Some("special"));
}

#[tokio::test]
async fn a_restart_loads_the_snapshot_unless_it_is_another_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = ClusterCache::with(None, "n1", directory.path(), freshness());
    assert!(cluster.node().is_none());
    cluster.objects().node = Some(NodeInfo::of(&node()).unwrap());
    let web = pod(json!({"namespace": "a", "name": "web-0", "uid": "u1"}));
    let pool = AddressPool::new("default", AddressPoolSpec::default());
    cluster.fill(vec![web], vec![pool], vec![("a".to_owned(), NamespaceInfo::of(&ObjectMeta::default()))]);
    let path = directory.path().join("cluster.json");
    std::fs::write(&path, snapshot::serialize(&cluster).unwrap()).unwrap();
    let again = ClusterCache::with(None, "n1", directory.path(), freshness());
    assert_eq!(again.node(), cluster.node());
    assert!(again.pool("default").is_some() && again.namespace("a").is_some());
    assert!(again.cached_pod("a", "web-0", "u1").is_some() && again.cached_pod("a", "web-0", "u2").is_none());
    assert!(again.wait_for_pools(Duration::ZERO).await && !again.has_synced(CachedKind::Pools));
    assert_eq!(again.pod("a", "web-0", "u2", Duration::from_mins(1)).await, PodLookup::Unreachable);
    assert!(ClusterCache::with(None, "n2", directory.path(), freshness()).node().is_none());
    std::fs::write(&path, b"{\"node\":").unwrap();
    assert!(ClusterCache::with(None, "n1", directory.path(), freshness()).node().is_none());
}

impl ClusterCache {
    /// A cache with these objects and no API server.
    pub(crate) fn of(
        node: Option<NodeInfo>,
        pools: Vec<AddressPool>,
        namespaces: Vec<(&str, NamespaceInfo)>,
        pods: Vec<PodInfo>,
    ) -> ClusterCache {
        let cluster = ClusterCache::with(None, "n1", Path::new("/nonexistent"), freshness());
        cluster.objects().node = node;
        let named = |(name, namespace): (&str, NamespaceInfo)| (name.to_owned(), namespace);
        cluster.fill(pods, pools, namespaces.into_iter().map(named).collect());
        cluster
    }
}
