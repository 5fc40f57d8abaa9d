//! The view without an API server: whose pod it is, and what a restart knows.

use bobbin_api_client::PartialNode;
use bobbin_crds::AddressPoolSpec;
use kube::core::ObjectMeta;
use serde_json::json;

use super::*;

fn pod(metadata: serde_json::Value) -> PodFacts {
    PodFacts::of(&serde_json::from_value::<ObjectMeta>(metadata).unwrap())
}

fn freshness() -> Arc<Freshness> {
    Arc::new(Freshness::new(crate::times::Times::new(1.0, Duration::from_mins(5)), None))
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
    let facts = NodeFacts::of(&node()).unwrap();
    assert_eq!(facts.ipv4, Some([192, 0, 2, 1].into()));
    assert_eq!(facts.ipv6, Some("fd00::1".parse().unwrap()));
    assert_eq!((facts.name.as_str(), facts.uid.as_str()), ("n1", "u1"));
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
async fn a_restart_knows_what_was_seen_before_and_another_nodes_view_is_no_view() {
    let directory = tempfile::tempdir().unwrap();
    let view = ClusterView::with(None, "n1", directory.path(), freshness());
    assert!(view.node().is_none());
    {
        let mut facts = view.facts();
        facts.node = Some(NodeFacts::of(&node()).unwrap());
        let web = pod(json!({"namespace": "a", "name": "web-0", "uid": "u1"}));
        facts.pods.insert(("a".to_owned(), "web-0".to_owned()), web);
        let pool = AddressPool::new("default", AddressPoolSpec::default());
        facts.pools.insert("default".to_owned(), Arc::new(pool));
        let metadata = ObjectMeta::default();
        facts.namespaces.insert("a".to_owned(), NamespaceFacts::of(&metadata));
    }
    let path = directory.path().join("cluster.json");
    std::fs::write(&path, saved::bytes(&view).unwrap()).unwrap();
    let again = ClusterView::with(None, "n1", directory.path(), freshness());
    assert_eq!(again.node(), view.node());
    assert!(again.pool("default").is_some() && again.namespace("a").is_some());
    assert!(again.cached_pod("a", "web-0", "u1").is_some() && again.cached_pod("a", "web-0", "u2").is_none());
    assert!(again.pools_known(Duration::ZERO).await && !again.knows(Feed::Pools));
    assert_eq!(again.pod("a", "web-0", "u2", Duration::from_mins(1)).await, PodLookup::Unreachable);
    assert!(ClusterView::with(None, "n2", directory.path(), freshness()).node().is_none());
    std::fs::write(&path, b"{\"node\":").unwrap();
    assert!(ClusterView::with(None, "n1", directory.path(), freshness()).node().is_none());
}

impl ClusterView {
    /// A view that knows what a test says, and no API server.
    pub(crate) fn of(
        node: Option<NodeFacts>,
        pools: Vec<AddressPool>,
        namespaces: Vec<(&str, NamespaceFacts)>,
        pods: Vec<PodFacts>,
    ) -> ClusterView {
        let view = ClusterView::with(None, "n1", Path::new("/nonexistent"), freshness());
        {
            let mut facts = view.facts();
            facts.node = node;
            facts.pools = pools.into_iter().map(|pool| (pool.metadata.name.clone().unwrap(), Arc::new(pool))).collect();
            facts.namespaces = namespaces.into_iter().map(|(name, facts)| (name.to_owned(), facts)).collect();
            facts.pods = pods.into_iter().map(|pod| ((pod.namespace.clone(), pod.name.clone()), pod)).collect();
        }
        view
    }
}
