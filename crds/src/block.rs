//! `AddressBlock`: a block of a pool's addresses, which is free or claimed by one node. The operator creates blocks,
//! and agents claim blocks.

mod rules;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::cel::{self, Family};
use crate::pool::MAX_NEXT_INDEX;

/// The largest index that a block can have.
pub const MAX_BLOCK_INDEX: i64 = MAX_NEXT_INDEX - 1;

/// The block's addresses, and the node that has claimed the block.
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
    category = "bobbin",
    printcolumn(name = "IPv4", type_ = "string", json_path = ".spec.ipv4", description = "The block's IPv4 addresses"),
    printcolumn(name = "IPv6", type_ = "string", json_path = ".spec.ipv6", description = "The block's IPv6 addresses"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolName", description = "The pool of the block"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName", description = "The node that has claimed the block; empty if the block is free"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the block was created"),
    validation = rules::name(),
    doc = "A block of a pool's addresses, which is free or claimed by one node. The operator creates and deletes blocks."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::range_stays(),
    validation = rules::claimed_or_free(),
    validation = rules::not_from_node_to_node(),
    validation = cel::any_family("a block"),
    validation = cel::same_size()
)]
pub struct AddressBlockSpec {
    /// The pool of the block.
    #[schemars(length(min = 1, max = 63))]
    pub pool_name: String,
    /// The index of the block in the pool: the firstIndex of the block's subnet plus the position of the block in this subnet.
    #[schemars(range(min = 0, max = MAX_BLOCK_INDEX))]
    pub index: i64,
    /// The block's IPv4 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    #[x_kube(validation = cel::cidr(Family::V4), validation = cel::no_host_bits(), validation = cel::max_size(Family::V4, 16))]
    pub ipv4: Option<String>,
    /// The block's IPv6 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = cel::cidr(Family::V6), validation = cel::no_host_bits(), validation = cel::max_size(Family::V6, 112))]
    pub ipv6: Option<String>,
    /// The node that has claimed the block; absent if the block is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// The UID of the node that has claimed the block; absent if the block is free.
    #[serde(rename = "nodeUID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub node_uid: Option<String>,
    /// The IPv4 address that the node had when it claimed the block.
    #[serde(rename = "nodeIPv4", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = cel::address(Family::V4))]
    pub node_ipv4: Option<String>,
    /// The IPv6 address that the node had when it claimed the block.
    #[serde(rename = "nodeIPv6", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 39))]
    #[x_kube(validation = cel::address(Family::V6))]
    pub node_ipv6: Option<String>,
    /// The time of the block's last release (RFC 3339); absent if the block was never released. A claim does not change this value, because
    /// the cool-down of the block's addresses starts at this time.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::time::unreadable_as_future_optional"
    )]
    pub free_since: Option<MicroTime>,
}
