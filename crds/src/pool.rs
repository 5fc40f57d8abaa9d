//! `AddressPool`: subnets to hand out, cut into blocks of one size. Users write it; operator and agents read it.

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

/// What a user writes: the subnets, how they are cut, and who may use them.
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
    printcolumn(name = "Blocks", type_ = "integer", json_path = ".status.blocks.claimed", description = "Blocks that nodes have claimed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the pool was made"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why the pool is ready or not", priority = 1),
    validation = rules::name(),
    doc = "A pool of pod addresses: subnets, cut into blocks that nodes claim."
)]
#[x_kube(validation = rules::block_fits())]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// The subnets to hand out, in order: 1 to 64 entries, all with the same families. Entries may only be appended.
    #[schemars(length(min = 1, max = MAX_SUBNETS))]
    #[x_kube(validation = rules::same_families(), validation = rules::no_overlap(), validation = rules::append_only())]
    pub subnets: Vec<Subnet>,
    /// A block has 2^blockSizeBits addresses (pairs): 0 to 16. Immutable.
    #[serde(default = "default_block_size_bits")]
    #[schemars(range(min = 0, max = MAX_BLOCK_SIZE_BITS))]
    #[x_kube(validation = cel::immutable("blockSizeBits can't be changed, because blocks of the old size may be in use: put the old value back, or make another pool and set draining on this one"))]
    pub block_size_bits: i64,
    /// Addresses or CIDRs that are never assigned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "reserved::schema")]
    pub reserved: Vec<String>,
    /// Namespaces whose pods may use the pool; absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector::schema")]
    #[x_kube(validation = rules::selector())]
    pub namespace_selector: Option<LabelSelector>,
    /// Nodes that may claim blocks of the pool; absent or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector::schema")]
    #[x_kube(validation = rules::selector())]
    pub node_selector: Option<LabelSelector>,
    /// No new addresses are handed out; those in use stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Seconds that an address rests after it was freed: 0 to 86400. The default is longer than a connection attempt is remembered.
    #[serde(default = "default_cooldown_seconds")]
    #[schemars(range(min = 0, max = MAX_COOLDOWN.as_secs()))]
    pub cooldown_seconds: i64,
    /// The most blocks that one node may hold; absent: no limit.
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

/// How long an address rests after it was freed, in a pool that does not say so or that is not known.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(130);
/// The longest cool-down that a pool may ask for: the maximum of `cooldownSeconds`.
pub const MAX_COOLDOWN: Duration = Duration::from_hours(24);

impl AddressPoolSpec {
    /// How long an address rests after it was freed.
    #[must_use]
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(self.cooldown_seconds.max(0).unsigned_abs())
    }
}

/// One entry of a pool: a subnet of either family, or one of each with the same number of host bits.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = cel::some_family("an entry of subnets"), validation = cel::same_size())]
pub struct Subnet {
    /// An IPv4 CIDR of /8 to /32, like 10.64.0.0/16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18))]
    #[x_kube(validation = cel::cidr(Family::V4), validation = cel::no_host_bits(), validation = cel::narrow(Family::V4, 8), validation = cel::for_pods(Family::V4))]
    pub ipv4: Option<String>,
    /// An IPv6 CIDR of /32 to /128, like fd00:64::/112.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = cel::cidr(Family::V6), validation = cel::no_host_bits(), validation = cel::narrow(Family::V6, 32), validation = cel::for_pods(Family::V6))]
    pub ipv6: Option<String>,
}

/// What the operator says of the pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The generation that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Addresses by family.
    #[serde(default)]
    pub addresses: AddressCounts,
    /// Addresses (pairs) that are free; the FREE column.
    #[serde(default)]
    pub free: i64,
    /// Addresses (pairs) that are assigned; the USED column.
    #[serde(default)]
    pub used: i64,
    /// Blocks of the pool.
    #[serde(default)]
    pub blocks: BlockCounts,
    /// The subnet entries that are carved, or about to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SUBNETS))]
    pub accepted_subnets: Vec<AcceptedSubnet>,
    /// The indices between which the free blocks lie; absent: there is no free block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_window: Option<FreeWindow>,
    /// `Ready` and `Exhausted`, and `Terminating` while the pool waits for its last address.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::time::conditions")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Counts of addresses, by family; a family that the pool does not have is absent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressCounts {
    /// IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyCounts>,
    /// IPv6 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyCounts>,
}

/// Counts of addresses of one family. Each saturates at 2^53 − 1.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyCounts {
    /// All addresses of the accepted subnets.
    pub total: i64,
    /// Addresses that are never assigned.
    pub reserved: i64,
    /// Addresses that an assignment holds.
    pub assigned: i64,
    /// Addresses freed in the last `cooldownSeconds`.
    pub cooling: i64,
    /// The rest.
    pub free: i64,
}

/// Counts of blocks. Each saturates at 2^53 − 1.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Blocks that the accepted subnets have room for, carved or not.
    pub total: i64,
    /// Blocks that a node has claimed.
    pub claimed: i64,
    /// Blocks that no node has claimed, carved or not.
    pub free: i64,
}

/// A subnet entry of the spec that the operator has looked at.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedSubnet {
    /// The entry's IPv4 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The entry's IPv6 CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// `Pending` until the operator has looked at all pools and blocks afresh, then `Accepted`. Only accepted entries are carved.
    pub state: Acceptance,
    /// When the entry was first written as pending (RFC 3339); the earlier of two overlapping entries wins.
    #[serde(deserialize_with = "crate::time::else_past")]
    pub since: MicroTime,
}

/// How far the acceptance of a subnet entry has come.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Written down, not yet confirmed.
    Pending,
    /// Confirmed: blocks may be carved from it.
    Accepted,
}

/// Indices of blocks: `first <= index <= last`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeWindow {
    /// The lowest index of a free block.
    pub first: i64,
    /// The highest index of a free block.
    pub last: i64,
    /// How many of these blocks are free.
    #[serde(default)]
    pub free: i64,
}

/// Condition types and reasons of an `AddressPool`.
pub mod condition {
    /// True when the pool's subnets are carved and its blocks can be claimed.
    pub const READY: &str = "Ready";
    /// True when no address of the pool is free.
    pub const EXHAUSTED: &str = "Exhausted";
    /// True while a deleted pool waits for its last address.
    pub const TERMINATING: &str = "Terminating";
}
