//! The pods that an assignment names, and that report an address.

use std::net::IpAddr;

use bobbin_api_client::{Lenient, selected_by};
use bobbin_crds::IPAssignment;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use super::doubt::Read;
use crate::api::objects;
use crate::api::pods::reports;

/// Reads the pod that the assignment names.
pub(super) async fn of(client: &Client, assignment: &IPAssignment) -> Read<Pod> {
    let spec = &assignment.spec;
    let (Some(namespace), Some(name)) = (&spec.pod_namespace, &spec.pod_name) else { return Read::Absent };
    match objects::get(&Api::<Lenient<Pod>>::namespaced(client.clone(), namespace), name).await {
        Ok(Some(pod)) => Read::Present(pod),
        Ok(None) => Read::Absent,
        Err(_) => Read::Unknown,
    }
}

/// A running pod that reports the address. `node` owns the block of the address. Finds no pod if the user may not list pods.
pub(super) async fn reporting(client: &Client, address: IpAddr, node: Option<&str>) -> Option<Pod> {
    let pods: Api<Lenient<Pod>> = Api::all(client.clone());
    // The API server finds pods only by their first address.
    let selectors = std::iter::once(format!("status.podIP={address}"));
    for fields in selectors.chain(node.map(|node| format!("spec.nodeName={node}"))) {
        let listed = objects::list_with(&pods, selected_by(&fields)).await.unwrap_or_default();
        if let Some(pod) = listed.into_iter().find(|pod| reports(pod, address)) {
            return Some(pod);
        }
    }
    None
}
