//! A Node with only the fields that Bobbin's programs use. The programs never write such a Node to the API server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// The taint by which an administrator declares that a Node's machine is off.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Each of these taints says that a Node's machine is shut down, or that an autoscaler is about to delete the Node. Cloud
/// controllers, the cluster autoscaler and Karpenter (before and since version 1) set these taints.
const REMOVAL_TAINTS: [&str; 4] = [
    "node.cloudprovider.kubernetes.io/shutdown",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disruption",
    "karpenter.sh/disrupted",
];

/// A Node with only the fields that Bobbin uses. Read it as `Lenient<PartialNode>`.
#[derive(Resource, Clone, Debug, Default, Deserialize, PartialEq)]
#[resource(inherit = "Node")]
pub struct PartialNode {
    /// Name, UID and labels of the Node.
    pub metadata: ObjectMeta,
    /// The spec of the Node.
    #[serde(default)]
    pub spec: PartialNodeSpec,
    /// The status that the Node's kubelet reports.
    #[serde(default)]
    pub status: PartialNodeStatus,
}

/// The spec of a Node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct PartialNodeSpec {
    /// Whether the Node is cordoned.
    #[serde(default)]
    pub unschedulable: bool,
    /// The taints of the Node.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub taints: Vec<PartialTaint>,
}

/// A taint of a Node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartialTaint {
    /// The key of the taint.
    pub key: String,
    /// The effect of the taint: `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(default)]
    pub effect: String,
}

/// The status that a Node's kubelet reports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct PartialNodeStatus {
    /// The addresses and host names of the Node's machine.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub addresses: Vec<PartialNodeAddress>,
    /// The conditions of the Node.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub conditions: Vec<PartialNodeCondition>,
}

/// An address or host name of a Node's machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartialNodeAddress {
    /// The type of the address: `InternalIP`, `ExternalIP`, `Hostname` or another.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// The address or the host name.
    pub address: String,
}

/// A condition of a Node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartialNodeCondition {
    /// The type of the condition: `Ready` or another.
    #[serde(rename = "type")]
    pub type_: String,
    /// The status of the condition: `True`, `False` or `Unknown`.
    pub status: String,
}

/// The maximum number of addresses that pools reserve for one Node. The Node's kubelet reports the addresses. Without this
/// limit, a thief with a stolen kubelet credential could block any number of pool addresses.
pub const MAX_RESERVED_ADDRESSES: usize = 8;

/// The type of an address within the cluster.
const INTERNAL: &str = "InternalIP";
/// The type of an address outside of the cluster.
const EXTERNAL: &str = "ExternalIP";

impl PartialNode {
    /// All internal and external IP addresses of the Node, internal ones first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.of_type(INTERNAL).chain(self.of_type(EXTERNAL)).collect()
    }

    /// Returns the addresses of the Node that pools reserve, at most [`MAX_RESERVED_ADDRESSES`]. Internal addresses come
    /// first, and each type is in ascending order. The result does not depend on the order of the addresses in the Node's
    /// status.
    pub fn reserved_addresses(&self) -> Vec<IpAddr> {
        let sorted = |type_| self.of_type(type_).collect::<BTreeSet<IpAddr>>();
        let (internal, mut external) = (sorted(INTERNAL), sorted(EXTERNAL));
        external.retain(|address| !internal.contains(address));
        internal.into_iter().chain(external).take(MAX_RESERVED_ADDRESSES).collect()
    }

    fn of_type(&self, type_: &str) -> impl Iterator<Item = IpAddr> {
        let all = self.status.addresses.iter().filter(move |one| one.type_ == type_);
        all.filter_map(|one| one.address.parse().ok()).map(|address: IpAddr| address.to_canonical())
    }

    /// The first internal IPv4 address of the Node.
    pub fn internal_ipv4(&self) -> Option<Ipv4Addr> {
        self.internal().find_map(|address| address.parse().ok())
    }

    /// The first internal IPv6 address of the Node.
    pub fn internal_ipv6(&self) -> Option<Ipv6Addr> {
        self.internal().find_map(|address| address.parse().ok())
    }

    fn internal(&self) -> impl Iterator<Item = &str> {
        self.status.addresses.iter().filter(|one| one.type_ == INTERNAL).map(|one| one.address.as_str())
    }

    /// Whether the Node has the out-of-service taint, by which an administrator declares that the Node's machine is off.
    pub fn out_of_service(&self) -> bool {
        self.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
    }

    /// Whether the Node's deletion is expected. The deletion is expected if the Node is cordoned, out of service or shut
    /// down, or if an autoscaler is about to delete the Node.
    pub fn removal_expected(&self) -> bool {
        let is_removal = |taint: &PartialTaint| REMOVAL_TAINTS.contains(&taint.key.as_str());
        self.spec.unschedulable || self.out_of_service() || self.spec.taints.iter().any(is_removal)
    }

    /// Whether the Node's condition `Ready` is true. Kubernetes sets the condition to `Unknown` when the kubelet stops
    /// reporting.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

pub(crate) fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_deletion_of_a_cordoned_shut_down_or_scaled_down_node_is_expected() {
        let node = |spec: serde_json::Value| -> PartialNode {
            serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).expect("it is a Node")
        };
        let tainted = |key: &str| node(json!({"taints": [{"key": key, "effect": "NoSchedule"}]}));
        assert!(node(json!({"unschedulable": true})).removal_expected());
        for key in [OUT_OF_SERVICE, "ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"] {
            assert!(tainted(key).removal_expected(), "{key}");
        }
        assert!(!node(json!({})).removal_expected());
        assert!(!tainted("node.kubernetes.io/unreachable").removal_expected());
    }

    #[test]
    fn all_addresses_of_a_node_count_but_pools_reserve_eight_in_an_order_of_their_own() {
        let node = |addresses: &[(&str, String)]| -> PartialNode {
            let of = |(type_, address): &(&str, String)| json!({"type": type_, "address": address});
            let addresses: Vec<_> = addresses.iter().map(of).collect();
            serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"addresses": addresses}}))
                .expect("it is a Node")
        };
        let mut all: Vec<(&str, String)> = (1..=7).map(|last| ("ExternalIP", format!("198.51.100.{last}"))).collect();
        all.extend([("Hostname", "n".to_owned()), ("ExternalIP", "192.0.2.9".to_owned())]);
        all.extend((1..=3).rev().map(|last| ("InternalIP", format!("192.0.2.{}", last * 4 + 5))));
        let shown = node(&all);
        assert_eq!(shown.addresses().len(), 11);
        let reserved: Vec<String> = shown.reserved_addresses().iter().map(ToString::to_string).collect();
        let external = (1..=5).map(|last| format!("198.51.100.{last}"));
        let internal = ["192.0.2.9", "192.0.2.13", "192.0.2.17"].map(str::to_owned).into_iter();
        assert_eq!(reserved, internal.chain(external).collect::<Vec<_>>());
        all.reverse();
        assert_eq!(node(&all).reserved_addresses(), shown.reserved_addresses());
    }
}
