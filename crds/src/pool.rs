//! `AddressPool`: subnets of pod addresses, which are divided into blocks of one size. Users write the spec of a pool.
//! The operator and the agents read the spec.

mod reserved;
mod rules;
mod selector;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, MicroTime};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::cel::{self, Family};

/// The largest number of entries in a pool's `subnets`.
pub const MAX_SUBNETS: usize = 64;
/// The largest `blockSizeBits`: a block has at most 65,536 addresses.
pub const MAX_BLOCK_SIZE_BITS: u8 = 16;
/// The largest number of entries in a pool's `reserved`.
pub const MAX_RESERVED: usize = 256;
/// The largest number of entries in a pool's `status.nodeAddresses`.
pub const MAX_NODE_ADDRESSES: usize = 1024;
/// The largest `status.nextIndex` of a pool: a pool has at most 64 subnets, and Bobbin uses at most 2^40 blocks of each.
pub const MAX_NEXT_INDEX: i64 = (MAX_SUBNETS.cast_signed() as i64) * (1 << 40);

/// The pool's subnets and block size, and the namespaces and nodes that may use the pool.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "bobbin.dev",
    version = "v1beta1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "ap",
    status = "AddressPoolStatus",
    derive = "PartialEq",
    category = "bobbin",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether blocks of the pool can be claimed"),
    printcolumn(name = "Free", type_ = "integer", json_path = ".status.free", description = "Addresses (pairs) that are free"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used", description = "Addresses (pairs) that pods hold"),
    printcolumn(name = "Blocks", type_ = "string", json_path = ".status.blocks.summary", description = "Free blocks / blocks that nodes have claimed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the pool was created"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why the pool is ready or not ready", priority = 1),
    printcolumn(name = "Subnets", type_ = "string", json_path = ".spec.subnets", description = "The subnets of the pool", priority = 1),
    printcolumn(name = "Cooling", type_ = "integer", json_path = ".status.addresses.*.cooling", description = "Addresses (pairs) that cool down", priority = 1),
    printcolumn(name = "Reserved", type_ = "integer", json_path = ".status.addresses.*.reserved", description = "Addresses (pairs) that are reserved", priority = 1),
    validation = rules::name(),
    validation = rules::accepted_subnets_stay(),
    validation = rules::block_numbers_stay(),
    doc = "A pool of pod addresses. The subnets of the pool are divided into blocks, which nodes claim."
)]
#[x_kube(validation = rules::block_fits())]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// The subnets of pod addresses, in the order of their use. There are 1 to 64 entries, all with the same address families. Entries can
    /// be appended. An entry that the operator has accepted can't be changed or removed.
    #[schemars(length(min = 1, max = MAX_SUBNETS))]
    #[x_kube(validation = rules::same_families(), validation = rules::no_overlap())]
    pub subnets: Vec<Subnet>,
    /// The size of the blocks, from 0 to 16. A block has 2^blockSizeBits addresses (pairs). This field is immutable.
    #[serde(default = "default_block_size_bits")]
    #[schemars(range(min = 0, max = MAX_BLOCK_SIZE_BITS))]
    #[x_kube(validation = cel::immutable("blockSizeBits is immutable, because blocks of the old size may be in use. Restore the old value, or create another pool and set draining on this one"))]
    pub block_size_bits: i64,
    /// Addresses and CIDRs that Bobbin never assigns to pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "reserved::schema")]
    pub reserved: Vec<String>,
    /// Selects the namespaces whose pods may use the pool. An absent or empty selector selects all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector::schema")]
    #[x_kube(validation = rules::selector())]
    pub namespace_selector: Option<LabelSelector>,
    /// Selects the nodes that may claim blocks of the pool. An absent or empty selector selects all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector::schema")]
    #[x_kube(validation = rules::selector())]
    pub node_selector: Option<LabelSelector>,
    /// If true, Bobbin assigns no new addresses of the pool. Running pods keep their addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// How many seconds (0 to 86400) a released address cools down. The default is long enough for connection attempts to the old pod to
    /// end. If a node can get no other address, it assigns an address before its cool-down is over.
    #[serde(default = "default_cooldown_seconds")]
    #[schemars(range(min = 0, max = MAX_COOLDOWN.as_secs()))]
    pub cooldown_seconds: i64,
    /// The largest number of blocks that one node may claim. If absent, a node may claim blocks with 2048 addresses in total, and always at
    /// least 4 blocks. The chart value `operator.maxAddressesPerNode` changes the number 2048.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_blocks_per_node: Option<i64>,
}

fn default_block_size_bits() -> i64 {
    5
}

fn default_cooldown_seconds() -> i64 {
    DEFAULT_COOLDOWN.as_secs().cast_signed()
}

/// The cool-down of an address whose pool is unknown. The schema uses the same value as the default of `cooldownSeconds`.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(130);
/// How many addresses the blocks of one node may have in a pool without `maxBlocksPerNode`. A flag of the operator and
/// the agents can set another number.
pub const DEFAULT_MAX_ADDRESSES_PER_NODE: u32 = 2048;
/// How many blocks every node may claim in a pool without `maxBlocksPerNode`, even if the blocks are large.
pub const MIN_DEFAULT_BLOCKS_PER_NODE: u32 = 4;
/// The longest cool-down: the maximum of `cooldownSeconds`.
pub const MAX_COOLDOWN: Duration = Duration::from_hours(24);

impl AddressPoolSpec {
    /// How long a released address cools down.
    #[must_use]
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(self.cooldown_seconds.max(0).unsigned_abs())
    }

    /// The largest number of blocks that one node may claim. If the pool has no `maxBlocksPerNode`, a node may claim
    /// enough blocks for `default_addresses` addresses, and at least [`MIN_DEFAULT_BLOCKS_PER_NODE`] blocks.
    #[must_use]
    pub fn max_blocks(&self, default_addresses: u32) -> u32 {
        let block_len = 1_u32 << self.block_size_bits.clamp(0, MAX_BLOCK_SIZE_BITS.into());
        let default = default_addresses.div_ceil(block_len).max(MIN_DEFAULT_BLOCKS_PER_NODE);
        self.max_blocks_per_node.map_or(default, |max| u32::try_from(max).unwrap_or(u32::MAX))
    }
}

/// One entry of subnets: an IPv4 subnet, an IPv6 subnet, or a pair of both with the same number of host bits.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = cel::any_family("an entry of subnets"), validation = cel::same_size())]
pub struct Subnet {
    /// An IPv4 CIDR of /8 to /32, for example 10.64.0.0/16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    #[x_kube(validation = cel::cidr(Family::V4), validation = cel::no_host_bits(), validation = cel::max_size(Family::V4, 8), validation = cel::for_pods(Family::V4))]
    pub ipv4: Option<String>,
    /// An IPv6 CIDR of /32 to /128, for example fd00:64::/112.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = cel::cidr(Family::V6), validation = cel::no_host_bits(), validation = cel::max_size(Family::V6, 32), validation = cel::for_pods(Family::V6))]
    pub ipv6: Option<String>,
}

/// The state of the pool. The operator writes the status.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The numbers of addresses in each address family.
    #[serde(default)]
    pub addresses: AddressCounts,
    /// The number of free addresses (pairs), which the column FREE shows.
    #[serde(default)]
    pub free: i64,
    /// The number of assigned addresses (pairs), which the column USED shows.
    #[serde(default)]
    pub used: i64,
    /// The numbers of blocks in the pool.
    #[serde(default)]
    pub blocks: BlockCounts,
    /// The entries of spec.subnets that the operator has accepted or is checking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SUBNETS))]
    pub accepted_subnets: Vec<AcceptedSubnet>,
    /// The entries of spec.subnets that the operator does not accept, each with the reason. Users can change or remove these entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SUBNETS))]
    pub refused_subnets: Vec<RefusedSubnet>,
    /// The index that the first block of the next accepted entry gets. This index never decreases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_NEXT_INDEX))]
    pub next_index: Option<i64>,
    /// Addresses of Nodes that lie in accepted entries. Each address is reserved while a Node has the address, and for the node grace
    /// period afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "reserved::node_addresses")]
    pub node_addresses: Vec<String>,
    /// The range of indices in which agents look for free blocks; absent if no block is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_window: Option<FreeWindow>,
    /// The number of Nodes that may claim blocks of the pool but have no block, rounded up to a power of two. Nodes that are out of service
    /// do not count. If this number exceeds `freeWindow.free`, agents wait longer between two claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub nodes_without_block: Option<i64>,
    /// The conditions `Ready`, `Accepted`, `BlocksExhausted`, `Exhausted`, `AddressConflict` and `Misconfigured`. A pool that is being
    /// deleted also has `Terminating`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::time::conditions")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The numbers of addresses in each address family. A family that the pool does not have is absent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressCounts {
    /// The numbers of IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyCounts>,
    /// The numbers of IPv6 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyCounts>,
}

/// The numbers of addresses in one family. Each number is at most 2^53 − 1. `total` is the sum of the other numbers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyCounts {
    /// All addresses of the accepted subnets.
    pub total: i64,
    /// Reserved addresses that no assignment holds.
    pub reserved: i64,
    /// Addresses that an assignment holds.
    pub assigned: i64,
    /// Addresses that were released in the last `cooldownSeconds` seconds.
    pub cooling: i64,
    /// Addresses that can be assigned.
    pub free: i64,
}

/// The numbers of blocks in a pool. Each number is at most 2^53 − 1.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// All blocks of the accepted subnets, including blocks that the operator has not created yet.
    pub total: i64,
    /// Blocks that a node has claimed.
    pub claimed: i64,
    /// Blocks that no node has claimed, including blocks that the operator has not created yet. Fully reserved blocks do not count.
    pub free: i64,
    /// The counts `free` and `claimed` in one column of `kubectl get`, such as `12/4`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

/// An entry of spec.subnets that the operator has accepted or is checking.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedSubnet {
    /// The entry's IPv4 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    pub ipv4: Option<String>,
    /// The entry's IPv6 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    pub ipv6: Option<String>,
    /// `Pending` while the operator checks the entry against all pools and blocks, then `Accepted`. Only accepted entries get blocks.
    pub state: Acceptance,
    /// When the entry was first written as pending (RFC 3339). Of two overlapping entries, the operator accepts the earlier entry.
    #[serde(deserialize_with = "crate::time::unreadable_as_past")]
    pub since: MicroTime,
    /// The index of the entry's first block; absent while the entry is pending. This index never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_NEXT_INDEX))]
    pub first_index: Option<i64>,
}

/// An entry of spec.subnets that the operator does not accept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedSubnet {
    /// The entry's IPv4 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The entry's IPv6 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// The kind of the conflict: `PoolOverlap`, `NodeAddress`, `ServiceRange`, `LeftoverObject` or `UnreadableObject`.
    pub reason: String,
    /// The message says which object has the addresses, and what to do.
    pub message: String,
}

/// Whether the operator has accepted a subnet entry.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The operator has not yet checked the entry against all pools and blocks.
    Pending,
    /// The operator has checked the entry, and may create blocks of the entry.
    Accepted,
}

/// A range of block indices, from `first` to `last` (inclusive).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeWindow {
    /// The lowest index of the range.
    pub first: i64,
    /// The highest index of the range.
    pub last: i64,
    /// How many blocks in the range are free.
    #[serde(default)]
    pub free: i64,
}
