//! A Node, as much of it as Bobbin's programs use. Never written back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// The taint of a Node whose machine is known to be off.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A Node. Read it as `Lenient<PartialNode>`.
#[derive(Resource, Clone, Debug, Default, Deserialize, PartialEq)]
#[resource(inherit = "Node")]
pub struct PartialNode {
    /// Name, UID, labels.
    pub metadata: ObjectMeta,
    /// What was asked of the Node.
    #[serde(default)]
    pub spec: PartialNodeSpec,
    /// What its kubelet says.
    #[serde(default)]
    pub status: PartialNodeStatus,
}

/// What was asked of a Node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct PartialNodeSpec {
    /// The Node is cordoned.
    #[serde(default)]
    pub unschedulable: bool,
    /// Its taints.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub taints: Vec<PartialTaint>,
}

/// A taint.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartialTaint {
    /// What tells it from others.
    pub key: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(default)]
    pub effect: String,
}

/// What a Node's kubelet says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct PartialNodeStatus {
    /// The machine's addresses and names.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub addresses: Vec<PartialNodeAddress>,
    /// Its conditions.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub conditions: Vec<PartialNodeCondition>,
}

/// An address or name of a machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartialNodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` or another.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// The address, or the name.
    pub address: String,
}

/// A condition of a Node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartialNodeCondition {
    /// `Ready` or another.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl PartialNode {
    /// The machine's addresses of all types; its names are passed over.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.status.addresses.iter().filter_map(|one| one.address.parse().ok()).collect()
    }

    /// The first internal IPv4 address.
    pub fn internal_ipv4(&self) -> Option<Ipv4Addr> {
        self.internal().find_map(|address| address.parse().ok())
    }

    /// The first internal IPv6 address.
    pub fn internal_ipv6(&self) -> Option<Ipv6Addr> {
        self.internal().find_map(|address| address.parse().ok())
    }

    fn internal(&self) -> impl Iterator<Item = &str> {
        self.status.addresses.iter().filter(|one| one.type_ == "InternalIP").map(|one| one.address.as_str())
    }

    /// Whether somebody has said that the machine is off.
    pub fn out_of_service(&self) -> bool {
        self.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
    }

    /// Whether the kubelet says that the Node is ready, and the node controller has heard of it lately.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
