//! The request for an address, its result, and the addresses that can't be allocated now.

use std::time::Duration;

use bobbin_ipam::{AttachmentKey, BootTime, IpPair};
use serde::{Deserialize, Serialize};

use super::{Attachment, AttachmentPhase, PodRef};
use crate::cluster::freshness::Proof;

/// A request of an ADD for an address.
#[derive(Clone, Debug)]
pub struct AllocationRequest<'a> {
    /// The attachment that needs an address.
    pub key: &'a AttachmentKey,
    /// The attachment's pod, as far as the runtime named it.
    pub pod: &'a PodRef,
    /// Whether the API server has shown this agent a pod with the UID that the runtime passed.
    pub pod_seen: bool,
    /// The pool that the address must come from.
    pub pool: &'a str,
    /// How long a freed address of the pool cools down.
    pub cooldown: Duration,
    /// Identifies the node's current boot.
    pub boot_id: &'a str,
    /// The path of the container's network namespace, from the runtime.
    pub netns: Option<&'a str>,
    /// The name of the CNI network.
    pub network: Option<&'a str>,
    /// The current time of day, which becomes the creation time of the attachment.
    pub at: jiff::Timestamp,
}

impl AllocationRequest<'_> {
    /// The new attachment, which gets the address `pair` of `block`.
    pub(super) fn attachment(&self, pair: IpPair, block: String) -> Attachment {
        Attachment {
            key: self.key.clone(),
            pair,
            block,
            pool: self.pool.to_owned(),
            pod: self.pod.clone(),
            pod_seen: self.pod_seen,
            created_at: self.at,
            boot_id: self.boot_id.to_owned(),
            assignment_uid: None,
            phase: AttachmentPhase::Adding,
            netns: self.netns.map(ToOwned::to_owned),
            network: self.network.map(ToOwned::to_owned),
            links: None,
        }
    }
}

/// Why no address was allocated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The attachment already has an address.
    #[error("attachment {} already has address {}", .0.key, .0.pair)]
    AlreadyAllocated(Box<Attachment>),
    /// The node has blocks of the pool in service, but each of their addresses is in use, reserved, excluded or cooling down.
    #[error("the node has {blocks} blocks of the pool in service, and none of them has a free address")]
    NoFreeAddress {
        /// How many blocks of the pool the node has in service.
        blocks: usize,
    },
    /// The node has no block of the pool in service.
    #[error("the node has no block of the pool in service")]
    NoBlock,
}

/// An allocated address. The ADD must check the token before it answers with the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The attachment that got the address.
    pub attachment: Attachment,
    /// Shows whether the address's block was doubted, lost or replaced after the allocation.
    pub token: FencingToken,
}

/// The block of an allocated address, and the block's epoch at the allocation. Before the ADD answers, it calls
/// [`NodeState::token_is_current`](super::NodeState::token_is_current) to find out whether the block was doubted, lost or replaced
/// meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencingToken {
    /// The block's name.
    pub block: String,
    /// What the API server had confirmed about the block.
    pub proof: Proof,
    pub(super) epoch: u64,
}

/// A cooling address, in the form that the checkpoint stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoolingAddress {
    /// The address that cools down.
    pub pair: IpPair,
    /// When the address was freed, in boot time.
    pub since: BootTime,
}

/// An IPAssignment of an address in this node's blocks. The attachment that the IPAssignment names is on another node, or does not have the
/// address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictingAssignment {
    /// The address that the assignment names.
    pub pair: IpPair,
    /// The assignment's name.
    pub name: String,
    /// The owner that the assignment names, for messages.
    pub by: String,
}
