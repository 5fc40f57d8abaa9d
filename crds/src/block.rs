//! `AddressBlock`: one slice of a pool, free or claimed by one node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The slice and, while it is claimed, the node that has it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "bobbin.dev",
    version = "v1beta1",
    kind = "AddressBlock",
    plural = "addressblocks",
    shortname = "ab",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".spec.poolName",
    doc = "A block of addresses of a pool, free or claimed by one node. Made and deleted by the operator."
)]
#[serde(rename_all = "camelCase")]
pub struct AddressBlockSpec {
    /// The pool that the block is cut from.
    pub pool_name: String,
    /// The place of the block in the pool, counted over all its subnets in order.
    pub index: i64,
    /// The block's IPv4 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The block's IPv6 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// The node that has claimed the block; absent: free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The UID of that node.
    #[serde(rename = "nodeUID", default, skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
    /// The node's IPv4 address at the claim.
    #[serde(rename = "nodeIPv4", default, skip_serializing_if = "Option::is_none")]
    pub node_ipv4: Option<String>,
    /// The node's IPv6 address at the claim.
    #[serde(rename = "nodeIPv6", default, skip_serializing_if = "Option::is_none")]
    pub node_ipv6: Option<String>,
    /// When the block was last given back (RFC 3339); absent: never claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_since: Option<MicroTime>,
}
