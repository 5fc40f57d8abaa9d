//! The document that each agent serves at [`PATH`] and that `kubectl bobbin` reads: the agent's view of its node.
//!
//! Agent and CLI may have different versions. So a reader ignores unknown fields, and each missing field has a default.

mod activity;
mod installation;
mod inventory;

pub use activity::{ApiStatus, CallError, Incident, NetworkStatus, ResyncStatus, WatchStatus};
pub use installation::{AgentMode, InstallationProblem, InstallationStatus};
pub use inventory::{AttachmentState, AttachmentStatus, BlockPhase, BlockStatus};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The URL path of the document. The agent serves it both on its metrics port and on its socket for health probes.
pub const PATH: &str = "/status";

/// The agent's view of its node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AgentStatus {
    /// The version of the agent.
    pub version: String,
    /// The name of the Node.
    pub node: String,
    /// The UID of the Node; absent if the agent has never read its Node.
    #[serde(rename = "nodeUID", skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
    /// When the agent made the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// What the agent does on the node.
    pub mode: AgentMode,
    /// The CNI plugin and the CNI configuration on the node; absent if the agent has not checked them, or does not install them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation: Option<InstallationStatus>,
    /// The attachments of the node.
    pub attachments: Vec<AttachmentStatus>,
    /// The blocks that the node owns, is claiming, or has lost.
    pub blocks: Vec<BlockStatus>,
    /// The most recent errors of ADD and DEL, in the order of their times.
    pub errors: Vec<CallError>,
    /// The agent's contact with the API server.
    pub api: ApiStatus,
    /// The resync: the comparison of the agent's state with the objects in the API server.
    pub resync: ResyncStatus,
    /// The repairs of the node's network.
    pub network: NetworkStatus,
}

#[cfg(test)]
mod tests;
