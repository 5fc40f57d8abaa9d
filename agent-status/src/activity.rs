//! What an agent did recently: failed ADDs and DELs, contact with the API server, resyncs, and repairs of the network.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A failed ADD or DEL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CallError {
    /// When the call failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// `ADD` or `DEL`.
    pub verb: String,
    /// The ID of the container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The namespace of the pod; empty if the runtime named no pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_namespace: String,
    /// The name of the pod; empty if the runtime named no pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    /// The text of the error in the agent's answer, cut to a maximum length.
    pub error: String,
}

/// Something that happened at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Incident {
    /// When it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// What happened, cut to a maximum length.
    pub what: String,
}

/// The agent's contact with the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiStatus {
    /// Whether the API server answered the agent's last request, and all watches are working.
    pub healthy: bool,
    /// When the API server last answered or a watch was active; absent if that never happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<Timestamp>,
    /// How many assignments wait to be created or deleted.
    pub pending_writes: usize,
    /// The agent's watches.
    pub watches: Vec<WatchStatus>,
}

/// One watch of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WatchStatus {
    /// What the agent watches.
    pub name: String,
    /// Whether the watch has listed all its objects since the agent started.
    pub synced: bool,
    /// When the watch was last active; absent if the watch was never active, or if the agent does not record this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active: Option<Timestamp>,
    /// Since when the watch fails; absent if the watch works, or if the agent does not record this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
}

/// The resync: the comparison of the agent's state with the objects in the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResyncStatus {
    /// When a comparison last succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Timestamp>,
    /// When the next comparison begins, unless a change triggers it earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Why the last comparison failed; absent if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Incident>,
}

/// The repairs of the node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkStatus {
    /// How often the agent has repaired a change by another program, since the agent started.
    pub repaired: u64,
    /// The most recent repairs, in the order of their times.
    pub last_repairs: Vec<Incident>,
    /// The differences that the most recent reconcile pass found in the node's network but could not repair.
    pub not_repaired: Vec<String>,
}
