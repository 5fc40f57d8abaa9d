//! The attachments and blocks of a node, as its agent knows them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One attachment of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachmentStatus {
    /// The ID of the container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface in the container.
    pub interface: String,
    /// The namespace of the pod; empty if the runtime named no pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_namespace: String,
    /// The name of the pod; empty if the runtime named no pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    /// The UID of the pod; empty if the runtime named no pod.
    #[serde(rename = "podUID", skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// The pool of the addresses.
    pub pool: String,
    /// The block of the addresses; empty if the agent does not know it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub block: String,
    /// The IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// The state of the attachment.
    pub state: AttachmentState,
    /// When the agent allocated the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When the agent found the attachment broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_since: Option<Timestamp>,
}

impl AttachmentStatus {
    /// The texts of the attachment's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        [&self.ipv4, &self.ipv6].into_iter().flatten().map(String::as_str)
    }
}

/// The state of an attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentState {
    /// The ADD has not answered yet.
    Adding,
    /// The ADD has answered, and no DEL has begun.
    Running,
    /// The DEL has begun.
    Ending,
    /// The host link is gone, but the network namespace exists. The pod has no network.
    Broken,
    /// A state that this program does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl fmt::Display for AttachmentState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            AttachmentState::Adding => "adding",
            AttachmentState::Running => "running",
            AttachmentState::Ending => "ending",
            AttachmentState::Broken => "broken",
            AttachmentState::Unknown => "unknown",
        })
    }
}

/// One block of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockStatus {
    /// The name of the block.
    pub name: String,
    /// The pool of the block.
    pub pool: String,
    /// The IPv4 addresses of the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The IPv6 addresses of the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// The state of the block on the node.
    pub state: BlockPhase,
    /// When the block entered its state; absent if the agent does not know this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Whether the block is proven: a recent answer of the API server shows that the node owns it.
    pub proven: bool,
    /// Whether the agent has exported the block's route, and has not withdrawn the route since then.
    pub exported: bool,
    /// How many addresses are assigned to attachments.
    pub assigned: u32,
    /// How many free addresses cool down.
    pub cooling: u32,
    /// How many addresses are free and do not cool down.
    pub free: u32,
}

/// The state of a block on its node. ARCHITECTURE.md describes the states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockPhase {
    /// The node has claimed the block, and the API server has not answered yet.
    Claiming,
    /// The block's route is being written, or the block waits for the quiet time after an outage to end.
    Exporting,
    /// Addresses may be allocated from the block.
    Serving,
    /// The node owns the block, but allocates no more addresses from it.
    Retiring,
    /// The node may have lost the block.
    Doubted,
    /// The node is releasing the block.
    Releasing,
    /// Another node owns the block.
    Lost,
    /// A state that this program does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl BlockPhase {
    /// The name of the state, as in the agent's metrics.
    pub fn name(self) -> &'static str {
        match self {
            BlockPhase::Claiming => "claiming",
            BlockPhase::Exporting => "exporting",
            BlockPhase::Serving => "serving",
            BlockPhase::Retiring => "retiring",
            BlockPhase::Doubted => "doubted",
            BlockPhase::Releasing => "releasing",
            BlockPhase::Lost => "lost",
            BlockPhase::Unknown => "unknown",
        }
    }
}
