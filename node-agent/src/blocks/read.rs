//! A block as the API server told it, and whose it is. Pure.

use std::time::Duration;

use bobbin_addressing::{BlockRange, BootTime, hash};
use bobbin_crds::{AddressBlock, FINALIZER};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::ledger::HeldBlock;
use crate::watch::NodeFacts;

/// What the agent reads of an `AddressBlock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockRead {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// It has our finalizer.
    pub finalizer: bool,
    /// It has any finalizer.
    pub has_finalizers: bool,
    pub pool: String,
    pub index: i64,
    /// `None`: it can't be read, so nothing is assigned from it.
    pub range: Option<BlockRange>,
    pub node_name: Option<String>,
    pub node_uid: Option<String>,
    pub node_ipv4: Option<String>,
    pub node_ipv6: Option<String>,
    pub free_since: Option<Timestamp>,
}

/// Whose a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody's, and to be had.
    Nobody,
    /// This Node's, by name and UID.
    Us,
    /// It names this node, but an earlier Node of that name.
    EarlierSelf,
    /// Another node's, or free and about to be deleted.
    Others,
}

impl BlockRead {
    pub(crate) fn of(block: AddressBlock) -> BlockRead {
        let finalizers = block.finalizers();
        BlockRead {
            name: block.name_any(),
            uid: block.metadata.uid.clone().unwrap_or_default(),
            resource_version: block.metadata.resource_version.clone().unwrap_or_default(),
            deleting: block.metadata.deletion_timestamp.is_some(),
            finalizer: finalizers.iter().any(|finalizer| finalizer == FINALIZER),
            has_finalizers: !finalizers.is_empty(),
            pool: block.spec.pool_name.clone(),
            index: block.spec.index,
            range: BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok(),
            node_name: block.spec.node_name.clone().filter(|name| !name.is_empty()),
            node_uid: block.spec.node_uid.clone(),
            node_ipv4: block.spec.node_ipv4.clone(),
            node_ipv6: block.spec.node_ipv6.clone(),
            free_since: block.spec.free_since.as_ref().map(|since| since.0),
        }
    }

    /// Whose the block is.
    pub(crate) fn owner(&self, node: &NodeFacts) -> Owner {
        match self.node_name.as_deref() {
            Some(name) if name == node.name => {
                if self.node_uid.as_deref() == Some(&node.uid) {
                    Owner::Us
                } else {
                    Owner::EarlierSelf
                }
            }
            Some(_) => Owner::Others,
            None if self.deleting => Owner::Others,
            None => Owner::Nobody,
        }
    }

    /// Whether a block of ours names the addresses that the Node has now.
    pub(crate) fn names_addresses_of(&self, node: &NodeFacts) -> bool {
        node.addresses().into_iter().map(|(_, address)| address).eq([self.node_ipv4.clone(), self.node_ipv6.clone()])
    }

    /// How long the block has been free; `None`: it never was anybody's. A time to come is another machine's clock, or junk: the block
    /// is free since just now.
    fn free_for(&self, now: Timestamp) -> Option<Duration> {
        self.free_since.map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default())
    }

    /// Whether the addresses of a free block have cooled. One that still has our finalizer cools from its claim.
    pub(crate) fn has_cooled(&self, now: Timestamp, cooldown: Duration) -> bool {
        cooldown.is_zero() || (!self.finalizer && self.free_for(now).is_none_or(|free| free >= cooldown))
    }

    /// Since when, in boot time, the addresses of this block rest; `None` when they have rested enough. `claimed`: as it was before the
    /// claim, which is when a block that still had its finalizer begins to cool.
    pub(crate) fn resting_since(&self, finalized: bool, cooldown: Duration, now: Timestamp, boot: BootTime) -> Option<BootTime> {
        if finalized && !cooldown.is_zero() {
            return Some(boot);
        }
        self.free_for(now).filter(|free| *free < cooldown).map(|free| boot.before(free))
    }

    /// The block as the ledger keeps it.
    ///
    /// # Errors
    /// A sentence, if its range can't be read.
    pub(crate) fn held(&self) -> Result<HeldBlock, String> {
        let range = self.range.ok_or_else(|| {
            format!("block {} can't be read, so nothing is assigned from it; see: kubectl get addressblock {0} -o yaml", self.name)
        })?;
        Ok(HeldBlock {
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

/// The free block to claim of those listed: cooled ones by hash of (node, block), then, unless only cooled ones will do, the one that
/// has cooled longest.
pub(crate) fn best_of(
    listed: Vec<BlockRead>,
    node: &str,
    seed: u64,
    now: Timestamp,
    cooldown: Duration,
    cooled_only: bool,
    may_claim: impl Fn(&str) -> bool,
) -> Option<BlockRead> {
    let to_be_had = listed.into_iter().filter(|block| {
        block.node_name.is_none()
            && !block.deleting
            && block.range.is_some()
            && may_claim(&block.name)
            && (!cooled_only || block.has_cooled(now, cooldown))
    });
    to_be_had.min_by_key(|block| {
        let shuffled = hash::stable(&[node.as_bytes(), block.name.as_bytes(), &seed.to_le_bytes()]);
        let cools = !block.has_cooled(now, cooldown);
        let since = cools.then_some(block.free_since);
        (cools, block.finalizer, since, shuffled)
    })
}

#[cfg(test)]
mod tests;
