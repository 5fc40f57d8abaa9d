//! The request for an address, the result of the request, and the addresses that can't be allocated now.

use std::time::Duration;

use bobbin_ipam::{AttachmentKey, BootTime, IpPair};
use serde::{Deserialize, Serialize};

use super::{Attachment, AttachmentPhase, PodRef};
use crate::cluster::freshness::Proof;

/// An ADD's request for an address.
#[derive(Clone, Debug)]
pub struct AllocationRequest<'a> {
    /// The attachment that needs an address.
    pub key: &'a AttachmentKey,
    /// The attachment's pod. A field is empty if the runtime did not pass its value.
    pub pod: &'a PodRef,
    /// Whether the API server has shown this agent a pod with the UID that the runtime passed.
    pub pod_seen: bool,
    /// The pool that the address must come from.
    pub pool: &'a str,
    /// How long a freed address of the pool cools down.
    pub cooldown: Duration,
    /// The ID of the node's current boot.
    pub boot_id: &'a str,
    /// The path of the container's network namespace, from the runtime.
    pub netns: Option<&'a str>,
    /// The name of the CNI network.
    pub network: Option<&'a str>,
    /// The current time of day, which becomes the attachment's creation time.
    pub at: jiff::Timestamp,
}

impl AllocationRequest<'_> {
    /// Creates the attachment that has the address `pair` of `block`.
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

/// The reason why no address was allocated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The attachment already has an address.
    #[error("attachment {} already has address {}", .0.key, .0.pair)]
    AlreadyAllocated(Box<Attachment>),
    /// The node has blocks of the pool in service. Each address of these blocks is in use, reserved, excluded or cooling down.
    #[error("the node has {blocks} blocks of the pool in service, and none of them has a free address")]
    NoFreeAddress {
        /// The number of the pool's blocks that this node has in service.
        blocks: usize,
    },
    /// The node has no block of the pool in service.
    #[error("the node has no block of the pool in service")]
    NoBlock,
}

/// An allocated address and its token. An ADD must check the token before it answers with the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The attachment that got the address.
    pub attachment: Attachment,
    /// Shows whether the address's block was doubted, lost or replaced after the allocation.
    pub token: FencingToken,
}

/// The block of an allocated address, and the block's epoch at the allocation. Before an ADD answers, it calls
/// [`NodeState::token_is_current`](super::NodeState::token_is_current), because the block may have been doubted, lost or replaced since the
/// allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencingToken {
    /// The block's name.
    pub block: String,
    /// The block's proof of ownership at the allocation.
    pub proof: Proof,
    pub(super) epoch: u64,
}

/// A cooling address, as the checkpoint stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoolingAddress {
    /// The address that cools down.
    pub pair: IpPair,
    /// When the address was freed, in boot time.
    pub since: BootTime,
}

/// An IPAssignment of an address in this node's blocks. The IPAssignment belongs to an attachment that is on another node, or that does not
/// have the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictingAssignment {
    /// The address in the assignment.
    pub pair: IpPair,
    /// The assignment's name.
    pub name: String,
    /// A description of the assignment's owner. The agent uses this description only in messages.
    pub by: String,
}
