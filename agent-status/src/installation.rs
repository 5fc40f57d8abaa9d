//! The agent's mode, and the state of the CNI plugin and the CNI configuration on the agent's node.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Incident;

/// What an agent does on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentMode {
    /// It gives the node's pods their network.
    Run,
    /// It removes Bobbin from the node.
    Remove,
    /// The agent is too old to report its mode, or reports a mode that the reader of the document does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The CNI plugin and the CNI configuration on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InstallationStatus {
    /// What is wrong now.
    pub problems: Vec<InstallationProblem>,
    /// How often the agent has restored a file that another program removed or changed, since the agent started.
    pub restored: u64,
    /// When the agent last restored such a file, and which one; absent if the agent has restored none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restored: Option<Incident>,
}

/// A problem of the CNI plugin or of the CNI configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InstallationProblem {
    /// The reason of the event that reports the problem, for example `CNIConfigShadowed`.
    pub reason: String,
    /// Since when the agent has seen the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What is wrong, and what to do.
    pub what: String,
}
