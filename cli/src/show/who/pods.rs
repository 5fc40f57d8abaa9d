//! Reads the pod that an assignment names, and finds a pod that reports an address.

use std::net::IpAddr;

use bobbin_api_client::{Lenient, selected_by};
use bobbin_crds::IPAssignment;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use crate::api::objects::{self, Read};
use crate::api::pods::reports;

/// Reads the pod that the assignment names.
pub(super) async fn of(client: &Client, assignment: &IPAssignment) -> Read<Pod> {
    let spec = &assignment.spec;
    let (Some(namespace), Some(name)) = (&spec.pod_namespace, &spec.pod_name) else { return Read::Absent };
    Read::of(objects::get(&Api::<Lenient<Pod>>::namespaced(client.clone(), namespace), name).await)
}

/// A running pod that reports the address. `node` is the node that owns the block of the address. Warns if the pods can't be listed.
pub(super) async fn reporting(client: &Client, address: IpAddr, node: Option<&str>) -> Option<Pod> {
    let pods: Api<Lenient<Pod>> = Api::all(client.clone());
    // The field selector `status.podIP` matches only the first address of a pod. So the pods of the block's node are searched, too.
    let selectors = node.map(|node| format!("spec.nodeName={node}")).into_iter();
    for fields in selectors.chain([format!("status.podIP={address}")]) {
        match objects::list_with(&pods, selected_by(&fields)).await {
            Ok(listed) => {
                if let Some(pod) = listed.into_iter().find(|pod| reports(pod, address)) {
                    return Some(pod);
                }
            }
            Err(error) => {
                anstream::eprintln!("warning: {error:#}, so a pod without an IPAssignment may have the address");
                return None;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router};
    use http::{StatusCode, Uri};
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::*;

    /// The answers of an API server that has a pod with addresses of both families on node n1, and forbids to read single pods.
    async fn answer(uri: Uri) -> Result<Json<Value>, StatusCode> {
        let query = uri.query().unwrap_or_default();
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        let pod =
            json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"containers": []}, "status": status});
        match uri.path() {
            "/api/v1/pods" if query.contains("podIP%3D10.0.0.1") || query.contains("nodeName%3Dn1") => {
                Ok(Json(json!({"metadata": {}, "items": [pod]})))
            }
            "/api/v1/pods" => Ok(Json(json!({"metadata": {}, "items": []}))),
            _ => Err(StatusCode::FORBIDDEN),
        }
    }

    fn client(router: Router) -> Client {
        Client::new(router, "default")
    }

    #[tokio::test]
    async fn a_pod_is_found_by_its_first_address_and_by_the_node_of_the_block() {
        let client = client(Router::new().fallback(answer));
        let found = async |address: &str, node: Option<&str>| {
            let pod = reporting(&client, address.parse().expect("an address"), node).await;
            pod.map(|pod| pod.name_any())
        };
        assert_eq!(found("10.0.0.1", None).await.as_deref(), Some("web"));
        assert_eq!(found("fd00::1", Some("n1")).await.as_deref(), Some("web"));
        assert_eq!(found("fd00::1", None).await, None);
        assert_eq!(found("10.0.0.2", Some("n1")).await, None);
    }

    #[tokio::test]
    async fn without_the_right_to_read_pods_nothing_is_known_about_them() {
        let client = client(Router::new().fallback(async || StatusCode::FORBIDDEN));
        assert!(reporting(&client, IpAddr::from([10, 0, 0, 1]), Some("n1")).await.is_none());
        let assignment = json!({"metadata": {"name": "10.0.0.1"}, "spec": {
            "poolName": "p", "blockName": "p-0", "nodeName": "n1", "ipv4": "10.0.0.1", "containerID": "c", "ifName": "eth0",
            "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "b", "podNamespace": "shop", "podName": "web"}});
        let assignment = serde_json::from_value(assignment).expect("an assignment");
        assert!(matches!(of(&client, &assignment).await, Read::Unknown));
    }
}
