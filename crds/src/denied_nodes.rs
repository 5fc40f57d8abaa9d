//! The ConfigMap in which the operator lists the denied nodes. The key of an entry is the node's name, and the value is the time and the
//! reason.

/// The name of the ConfigMap, in the operator's namespace. The chart's admission policies have the same name.
pub const CONFIG_MAP: &str = "bobbin-denied-nodes";
