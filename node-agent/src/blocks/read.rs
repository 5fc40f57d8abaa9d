//! Extracts the fields of an AddressBlock that the agent uses, finds the block's owner, and selects the free block to claim. This module
//! does no I/O.

use std::time::Duration;

use bobbin_api_client::Lenient;
use bobbin_crds::{AddressBlock, FINALIZER};
use bobbin_ipam::{BlockRange, BootTime, hash};
use jiff::Timestamp;
use kube::Resource;

use crate::cluster::NodeInfo;
use crate::state::ClaimedBlock;

/// The fields of an `AddressBlock` that the agent uses.
#[allow(clippy::struct_excessive_bools, reason = "independent properties of the object")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockInfo {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// Whether the block has a deletionTimestamp.
    pub deleting: bool,
    /// Whether the block has Bobbin's finalizer.
    pub finalizer: bool,
    /// Whether the block has any finalizer.
    pub has_finalizers: bool,
    /// Whether the block's spec could be decoded.
    pub readable: bool,
    pub pool: String,
    pub index: i64,
    /// The block's addresses. `None` if the range can't be parsed; the node then assigns no address from the block.
    pub range: Option<BlockRange>,
    pub node_name: Option<String>,
    pub node_uid: Option<String>,
    pub node_ipv4: Option<String>,
    pub node_ipv6: Option<String>,
    pub free_since: Option<Timestamp>,
}

/// The name and the resourceVersion of a block.
pub(crate) type BlockVersion = (String, String);

/// Which node owns a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// No node owns the block, so a node can claim it.
    Free,
    /// The block names this Node by name and UID.
    ThisNode,
    /// The block names this node, but has the UID of an earlier Node of the same name.
    EarlierNode,
    /// Another node owns the block, or the block is free and being deleted.
    OtherNode,
    /// The block can't be decoded, so its owner is unknown.
    Unknown,
}

impl BlockInfo {
    /// Extracts the fields of an AddressBlock object. A block that can't be decoded has an unknown owner.
    pub(crate) fn of(block: &Lenient<AddressBlock>) -> BlockInfo {
        let metadata = block.meta().clone();
        let finalizers = metadata.finalizers.unwrap_or_default();
        let seen = BlockInfo {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizer: finalizers.iter().any(|finalizer| finalizer == FINALIZER),
            has_finalizers: !finalizers.is_empty(),
            ..BlockInfo::default()
        };
        let Some(spec) = block.readable().map(|block| block.spec.clone()) else { return seen };
        BlockInfo {
            readable: true,
            pool: spec.pool_name,
            index: spec.index,
            range: BlockRange::parse(spec.ipv4.as_deref(), spec.ipv6.as_deref()).ok(),
            node_name: spec.node_name.filter(|name| !name.is_empty()),
            node_uid: spec.node_uid,
            node_ipv4: spec.node_ipv4,
            node_ipv6: spec.node_ipv6,
            free_since: spec.free_since.map(|since| since.0),
            ..seen
        }
    }

    /// The version of the block that the agent has read.
    pub(crate) fn version(&self) -> BlockVersion {
        (self.name.clone(), self.resource_version.clone())
    }

    /// Finds the owner of `held`, a block in this node's state. After a restore of etcd, the operator may create a new block with the same
    /// name but other addresses. If the agent has read such a new block, `held` counts as owned by another node.
    pub(crate) fn owner_of(&self, held: &ClaimedBlock, node: &NodeInfo) -> Owner {
        if self.range.is_some_and(|range| range != held.range) { Owner::OtherNode } else { self.owner(node) }
    }

    /// Which node owns the block.
    pub(crate) fn owner(&self, node: &NodeInfo) -> Owner {
        match self.node_name.as_deref() {
            _ if !self.readable => Owner::Unknown,
            Some(name) if name == node.name => {
                if self.node_uid.as_deref() == Some(&node.uid) {
                    Owner::ThisNode
                } else {
                    Owner::EarlierNode
                }
            }
            Some(_) => Owner::OtherNode,
            None if self.deleting => Owner::OtherNode,
            None => Owner::Free,
        }
    }

    /// Whether the block's fields nodeIPv4 and nodeIPv6 contain the Node's current addresses.
    pub(crate) fn names_addresses_of(&self, node: &NodeInfo) -> bool {
        node.addresses().into_iter().map(|(_, address)| address).eq([self.node_ipv4.clone(), self.node_ipv6.clone()])
    }

    /// Whether the cool-down of a free block has ended. While a block has Bobbin's finalizer, its cool-down has not begun. It begins when a
    /// node claims the block.
    pub(crate) fn has_cooled(&self, now: Timestamp, cooldown: Duration) -> bool {
        cooldown.is_zero() || (!self.finalizer && free_for(self.free_since, now).is_none_or(|free| free >= cooldown))
    }

    /// Returns when the cool-down of a newly claimed block began, in boot time. Returns `None` if the cool-down has ended. If the block
    /// still had Bobbin's finalizer before the claim, its cool-down begins with the claim.
    pub(crate) fn cooling_since(
        &self,
        had_finalizer: bool,
        cooldown: Duration,
        now: Timestamp,
        boot: BootTime,
    ) -> Option<BootTime> {
        if had_finalizer && !cooldown.is_zero() {
            return Some(boot);
        }
        cooling_since(self.free_since, cooldown, now, boot)
    }

    /// Converts the block into the form that the node's state stores.
    ///
    /// # Errors
    /// Fails if the block's range can't be parsed.
    pub(crate) fn held(&self) -> Result<ClaimedBlock, String> {
        let range = self.range.ok_or_else(|| {
            format!(
                "the agent can't parse the range of block {}, so it allocates no address from the block; see: kubectl get addressblock {0} -o yaml",
                self.name
            )
        })?;
        Ok(ClaimedBlock {
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            pool: self.pool.clone(),
            index: self.index,
            range,
            free_since: self.free_since,
            deleting: self.deleting,
        })
    }
}

/// How long a block has been free. Returns `None` if no node ever owned the block. If `since` is in the future, another machine's clock is
/// ahead, and `since` counts as now.
fn free_for(since: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    since.map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

/// Returns when the cool-down of a block began, in boot time. `since` is the time at which the block became free. Returns `None` if the
/// cool-down has ended.
pub(crate) fn cooling_since(
    since: Option<Timestamp>,
    cooldown: Duration,
    now: Timestamp,
    boot: BootTime,
) -> Option<BootTime> {
    free_for(since, now).filter(|free| *free < cooldown).map(|free| boot.before(free))
}

/// Selects the free block to claim. If several blocks have cooled down, a hash of node, block and `seed` selects one of them. If no block
/// has cooled down, the function selects the block that has been free longest. If `cooled_only` is true, it selects no block that is still
/// cooling down.
pub(crate) fn best_free_block(
    listed: Vec<BlockInfo>,
    node: &str,
    seed: u64,
    now: Timestamp,
    cooldown: Duration,
    cooled_only: bool,
    may_claim: impl Fn(&BlockInfo) -> bool,
) -> Option<BlockInfo> {
    let claimable = listed.into_iter().filter(|block| {
        block.node_name.is_none()
            && !block.deleting
            && block.readable
            && block.range.is_some()
            && may_claim(block)
            && (!cooled_only || block.has_cooled(now, cooldown))
    });
    claimable.min_by_key(|block| {
        let shuffled = hash::stable_hash(&[node.as_bytes(), block.name.as_bytes(), &seed.to_le_bytes()]);
        let cools = !block.has_cooled(now, cooldown);
        let since = cools.then_some(block.free_since);
        (cools, block.finalizer, since, shuffled)
    })
}

#[cfg(test)]
mod tests;
