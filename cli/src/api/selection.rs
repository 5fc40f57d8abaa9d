//! Selects the pool of a pod by the rules that the agents use.

use std::collections::BTreeMap;

use anyhow::Result;
use bobbin_api_client::pod::MIRROR;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::{AddressPool, POOL_ANNOTATION};
use bobbin_ipam::{PoolInfo, PoolSelection, SelectionError, SelectionSource, select_pool};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, ResourceExt};

use crate::api::objects;

/// Selects the pool from which a replacement of this pod would get its address, if the replacement ran on the same node.
pub(crate) async fn select(
    client: &Client,
    namespace: &str,
    pod: &Pod,
) -> Result<Result<PoolSelection, SelectionError>> {
    let listed = objects::list(&Api::<Lenient<AddressPool>>::all(client.clone()), "").await?;
    let pools: BTreeMap<String, AddressPool> = listed.into_iter().map(|pool| (pool.name_any(), pool)).collect();
    let of_namespace = objects::get(&Api::<Lenient<Namespace>>::all(client.clone()), namespace).await?;
    let of_namespace = of_namespace.map(|namespace| namespace.metadata).unwrap_or_default();
    let node = match pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) {
        Some(node) => objects::get(&Api::<Lenient<PartialNode>>::all(client.clone()), node).await?,
        None => None,
    };
    let node_labels = node.and_then(|node| node.metadata.labels).unwrap_or_default();
    let namespace_labels = of_namespace.labels.unwrap_or_default();
    let of_pod = pod.annotations().get(POOL_ANNOTATION).map(String::as_str);
    let of_namespace = of_namespace.annotations.unwrap_or_default();
    let of_namespace = of_namespace.get(POOL_ANNOTATION).map(String::as_str);
    let info = |name: &str| pools.get(name).map(|pool| PoolInfo::of(pool, &namespace_labels, &node_labels));
    Ok(select_pool(of_pod, of_namespace, Some(namespace), info))
}

/// Why the pool was selected, as the end of a sentence that begins with the pool's name.
pub(crate) fn rule(source: SelectionSource) -> &'static str {
    match source {
        SelectionSource::PodAnnotation => "the pod's annotation bobbin.dev/pool names it",
        SelectionSource::NamespaceAnnotation => "the annotation bobbin.dev/pool of the pod's namespace names it",
        SelectionSource::NamespaceName => "it has the same name as the pod's namespace",
        SelectionSource::Default => "neither the pod nor its namespace names a pool",
    }
}

/// Whether an assignment with this pod UID belongs to the pod. The assignment of a static pod has the UID that kubelet uses, and not
/// the UID of the mirror pod.
pub(crate) fn is_of(pod: &Pod, uid: Option<&str>) -> bool {
    let mirror = pod.annotations().get(MIRROR);
    uid.is_none_or(|uid| {
        uid.is_empty() || pod.metadata.uid.as_deref() == Some(uid) || mirror.is_some_and(|hash| hash == uid)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_assignment_of_an_earlier_pod_of_the_name_is_not_of_the_pod() {
        let pod = |value| serde_json::from_value::<Pod>(value).expect("a pod");
        let now = pod(json!({"metadata": {"name": "web-0", "uid": "new"}}));
        assert!(is_of(&now, Some("new")) && is_of(&now, None) && !is_of(&now, Some("old")));
        let mirror = json!({"kubernetes.io/config.mirror": "hash"});
        assert!(is_of(&pod(json!({"metadata": {"name": "s", "uid": "m", "annotations": mirror}})), Some("hash")));
    }
}
