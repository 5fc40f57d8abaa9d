//! The ConfigMap in which the operator remembers the deleted Nodes, one entry for each Node, as JSON.

/// The name of the ConfigMap, in the operator's namespace.
pub const CONFIG_MAP: &str = "bobbin-deleted-nodes";
/// The annotation with which an administrator confirms that the machines of deleted Nodes are off. Its value is a time: the
/// confirmation covers the Nodes that were deleted until that time.
pub const CONFIRMATION: &str = "bobbin.dev/confirm-deletion";
/// The name of the field with the time at which the Node was deleted (RFC 3339).
pub const DELETED_AT: &str = "deletedAt";
/// The name of the field that says how far the release of the Node's addresses is: `Expected`, `Waiting`, `Held`, `Released`
/// or `Done`.
pub const STATE: &str = "state";
