//! What the check reads of pods. Without the right to read pods, the check leaves out what depends on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bobbin_api_client::Lenient;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};

use super::{CONCURRENT_FETCHES, View};
use crate::api::objects::{self, Read};
use crate::api::pods::{addresses, has_ended, own_addresses};
use crate::commands::check::compare::{PodName, waiting_pods};

/// How many pods one call of [`read`] reads at most. A waiting pod beyond this limit counts as still waiting. The pod of an assignment
/// counts as unknown.
const MAX_PODS_READ: usize = 200;

/// A running pod that reports its own addresses. Pods in the network of their node are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningPod {
    pub(crate) name: PodName,
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
}

impl RunningPod {
    /// The pod, if it runs on a node and reports its own addresses.
    fn of(pod: &Pod) -> Option<Self> {
        let node = pod.spec.as_ref()?.node_name.clone()?;
        let addresses = own_addresses(pod);
        let name = (pod.namespace().unwrap_or_default(), pod.name_any());
        (!addresses.is_empty()).then_some(Self { name, node, addresses })
    }
}

/// The running pods of these nodes that report addresses. An empty scope means all nodes.
pub(super) async fn running(client: &Client, scope: &BTreeSet<String>) -> Vec<RunningPod> {
    let pods: Api<Lenient<Pod>> = Api::all(client.clone());
    let selectors = scope.iter().map(|node| format!("spec.nodeName={node}"));
    let selectors: Vec<String> = if scope.is_empty() { vec![String::new()] } else { selectors.collect() };
    let mut found = Vec::new();
    for selector in selectors {
        found.extend(objects::list_mapped(&pods, &selector, RunningPod::of).await.unwrap_or_default());
    }
    found
}

/// The pods that no longer wait for an address, although they do in the agents' views: they are deleted, have ended, or have an address.
/// A pod that the user may not read counts as waiting.
pub(super) async fn gone(client: &Client, views: &BTreeMap<String, View>) -> BTreeSet<PodName> {
    let mut waiting = BTreeSet::new();
    for view in views.values() {
        if let View::Status(status) = view {
            waiting.extend(waiting_pods(status));
        }
    }
    let is_gone = |pod: &Read<Pod>| match pod {
        Read::Absent => true,
        Read::Present(pod) => no_longer_waits(pod),
        Read::Unknown => false,
    };
    read(client, waiting).await.into_iter().filter_map(|(name, pod)| is_gone(&pod).then_some(name)).collect()
}

/// Whether the pod has an address, has ended, or is being deleted.
fn no_longer_waits(pod: &Pod) -> bool {
    !addresses(pod).is_empty() || has_ended(pod) || pod.metadata.deletion_timestamp.is_some()
}

/// Reads up to [`MAX_PODS_READ`] of the pods.
pub(super) async fn read(client: &Client, names: BTreeSet<PodName>) -> BTreeMap<PodName, Read<Pod>> {
    let reads = names.into_iter().take(MAX_PODS_READ).map(|(namespace, name)| async move {
        let pods: Api<Lenient<Pod>> = Api::namespaced(client.clone(), &namespace);
        let pod = Read::of(objects::get(&pods, &name).await);
        ((namespace, name), pod)
    });
    stream::iter(reads).buffer_unordered(CONCURRENT_FETCHES).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use axum::{Json, Router};
    use http::{StatusCode, Uri};

    #[test]
    fn a_pod_waits_until_it_has_an_address_ends_or_is_deleted() {
        let waits = |metadata: serde_json::Value, status: serde_json::Value| {
            let pod = serde_json::json!({"metadata": metadata, "status": status});
            !no_longer_waits(&serde_json::from_value(pod).expect("a pod"))
        };
        let (pending, none) = (serde_json::json!({"phase": "Pending"}), serde_json::json!({}));
        assert!(waits(none.clone(), pending.clone()) && waits(none.clone(), none.clone()));
        assert!(!waits(none.clone(), serde_json::json!({"phase": "Pending", "podIP": "10.0.0.1"})));
        assert!(!waits(none.clone(), serde_json::json!({"phase": "Failed"})));
        assert!(!waits(none, serde_json::json!({"phase": "Succeeded"})));
        assert!(!waits(serde_json::json!({"deletionTimestamp": "2026-11-22T10:00:00Z"}), pending));
    }

    #[test]
    fn only_running_pods_with_own_addresses_on_a_node_are_reported() {
        let of = |spec: serde_json::Value, phase: &str| {
            let status = serde_json::json!({"phase": phase, "podIPs": [{"ip": "192.0.2.1"}]});
            let pod = serde_json::json!({"metadata": {"namespace": "a", "name": "b"}, "spec": spec, "status": status});
            RunningPod::of(&serde_json::from_value(pod).expect("a pod"))
        };
        let own = serde_json::json!({"containers": [], "nodeName": "n1"});
        let pod = of(own.clone(), "Running").expect("a reported pod");
        assert_eq!(pod.name, ("a".to_owned(), "b".to_owned()));
        assert_eq!((pod.node.as_str(), pod.addresses), ("n1", vec![IpAddr::from([192, 0, 2, 1])]));
        assert_eq!(of(own, "Failed"), None);
        let of_host = serde_json::json!({"containers": [], "nodeName": "n1", "hostNetwork": true});
        assert_eq!(of(of_host, "Running"), None);
        assert_eq!(of(serde_json::json!({"containers": []}), "Running"), None);
    }

    /// An API server that has the pod `a`, and forbids to read the pod `secret`.
    async fn answer(uri: Uri) -> impl IntoResponse {
        match uri.path() {
            "/api/v1/namespaces/shop/pods/a" => Ok(Json(serde_json::json!({"metadata": {"name": "a"}}))),
            path if path.starts_with("/api/v1/namespaces/shop/pods/secret") => Err(StatusCode::FORBIDDEN),
            _ => Err(StatusCode::NOT_FOUND),
        }
    }

    #[tokio::test]
    async fn a_pod_that_the_user_may_not_read_is_unknown() {
        let client = Client::new(Router::new().fallback(answer), "default");
        let name = |name: &str| ("shop".to_owned(), name.to_owned());
        let pods = read(&client, ["a", "gone", "secret", "secret/log"].map(name).into()).await;
        assert!(matches!(pods[&name("a")], Read::Present(_)));
        assert!(matches!(pods[&name("gone")], Read::Absent));
        assert!(matches!(pods[&name("secret")], Read::Unknown));
        assert!(matches!(pods[&name("secret/log")], Read::Absent), "no pod has such a name, so nothing is read");
    }
}
