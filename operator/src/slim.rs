//! The kinds as the operator's watches read them: what it needs and nothing more, so that 50,000 of them pass through a
//! small memory, and so that a field it does not read can't break it. Never written back.

use std::net::IpAddr;

use bobbin_addressing::overlap::Stray;
use bobbin_addressing::{BlockRange, Pair};
use bobbin_crds::IPAssignment;
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

/// The taint of a node whose machine is known to be off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

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

/// A `Node`.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Node")]
pub(crate) struct SlimNode {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimNodeSpec,
    #[serde(default)]
    status: SlimNodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SlimNodeStatus {
    #[serde(default)]
    addresses: Vec<SlimNodeAddress>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimNodeAddress {
    address: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SlimNodeSpec {
    #[serde(default)]
    taints: Vec<SlimTaint>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimTaint {
    key: String,
}

impl SlimNode {
    /// The machine's addresses; its names are passed over.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.status.addresses.iter().filter_map(|one| one.address.parse().ok()).collect()
    }

    /// The machine's addresses, each as what no pool may have.
    pub(crate) fn strays(&self) -> impl Iterator<Item = Stray> {
        let name = self.metadata.name.clone().unwrap_or_default();
        self.addresses().into_iter().map(move |address| stray_of(&name, address))
    }

    /// Whether somebody has said that the machine is off.
    pub(crate) fn out_of_service(&self) -> bool {
        self.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
    }
}

/// A node's own address in the way of a pool: a route to it as a pod's would cut the node off.
pub(crate) fn stray_of(node: &str, address: IpAddr) -> Stray {
    let pair = match address {
        IpAddr::V4(ipv4) => Pair { ipv4: Some(ipv4), ipv6: None },
        IpAddr::V6(ipv6) => Pair { ipv4: None, ipv6: Some(ipv6) },
    };
    Stray::of_node(format!("the address of Node {node}"), BlockRange::from(pair))
}
