//! Records as the operator's watches read them: what it needs and nothing more, so that 50,000 of them pass through a
//! small memory, and so that a field it does not read can't break it. Never written back.

use std::net::IpAddr;

use bobbin_api_client::PartialNode;
use bobbin_crds::IPAssignment;
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::{BlockRange, IpPair};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

/// An `IPAssignment`.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "IPAssignment")]
pub(crate) struct SlimAssignment {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: SlimAssignmentSpec,
}

/// Who holds the address.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SlimAssignmentSpec {
    pub(crate) pool_name: String,
    pub(crate) block_name: String,
    pub(crate) node_name: String,
    pub(crate) ipv4: Option<String>,
    pub(crate) ipv6: Option<String>,
    pub(crate) pod_namespace: Option<String>,
    pub(crate) pod_name: Option<String>,
    #[serde(rename = "podUID")]
    pub(crate) pod_uid: Option<String>,
}

/// The machine's addresses, each as what no pool may have.
pub(crate) fn node_conflicts(node: &PartialNode) -> impl Iterator<Item = SubnetConflict> {
    let name = node.metadata.name.clone().unwrap_or_default();
    node.addresses().into_iter().map(move |address| node_conflict(&name, address))
}

/// A node's own address in the way of a pool: a route to it as a pod's would cut the node off.
pub(crate) fn node_conflict(node: &str, address: IpAddr) -> SubnetConflict {
    let pair = match address {
        IpAddr::V4(ipv4) => IpPair { ipv4: Some(ipv4), ipv6: None },
        IpAddr::V6(ipv6) => IpPair { ipv4: None, ipv6: Some(ipv6) },
    };
    SubnetConflict::of_node(format!("the address of Node {node}"), BlockRange::from(pair))
}
