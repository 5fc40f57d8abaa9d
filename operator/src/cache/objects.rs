//! Watched objects with only the fields that the operator reads, so that 50,000 assignments need little memory.
//!
//! The operator never writes objects of these types to the API server.

use std::net::IpAddr;

use bobbin_api_client::PartialNode;
use bobbin_crds::IPAssignment;
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::{BlockRange, IpPair, SubnetPair};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

/// An `IPAssignment` with only the fields that the operator reads.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "IPAssignment")]
pub(crate) struct PartialAssignment {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: PartialAssignmentSpec,
}

/// The fields of an assignment's spec that the operator reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartialAssignmentSpec {
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

/// A `ServiceCIDR` with only the fields that the operator reads.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "ServiceCIDR")]
pub(crate) struct PartialServiceCIDR {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: PartialServiceCIDRSpec,
}

/// The address ranges in the spec of a `ServiceCIDR`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PartialServiceCIDRSpec {
    pub(crate) cidrs: Option<Vec<String>>,
}

/// The ranges of a `ServiceCIDR`, as conflicts. No pool may contain Service addresses: a node that claims a block with
/// such addresses can no longer reach the API server.
pub(crate) fn service_conflicts(services: &PartialServiceCIDR) -> Vec<SubnetConflict> {
    let name = services.metadata.name.as_deref().unwrap_or_default();
    let conflict = |net: IpNet| {
        let SubnetPair { ipv4, ipv6 } = net.into();
        let range = BlockRange { ipv4, ipv6 };
        SubnetConflict::of_services(format!("the range of ServiceCIDR {name}"), range)
    };
    services.spec.cidrs.iter().flatten().filter_map(|text| text.parse().ok()).map(conflict).collect()
}

/// The addresses of a node. No pool may contain these addresses, because a pod route to one of them would cut the node off.
pub(crate) fn node_conflicts(node: &PartialNode) -> Vec<SubnetConflict> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let conflict = |address| node_conflict(format!("the address of Node {name}"), address);
    node.addresses().into_iter().map(conflict).collect()
}

/// The conflict with one address of a node. `what` names the address in a message.
pub(super) fn node_conflict(what: String, address: IpAddr) -> SubnetConflict {
    let pair = match address {
        IpAddr::V4(ipv4) => IpPair { ipv4: Some(ipv4), ipv6: None },
        IpAddr::V6(ipv6) => IpPair { ipv4: None, ipv6: Some(ipv6) },
    };
    SubnetConflict::of_node(what, BlockRange::from(pair))
}
