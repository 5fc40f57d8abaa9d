//! The ConfigMap in which the operator remembers the deleted Nodes, one entry for each Node, as JSON.

/// The name of the ConfigMap, in the operator's namespace.
pub const CONFIG_MAP: &str = "bobbin-deleted-nodes";
/// The annotation with which an administrator confirms that the machines of deleted Nodes are off. Its value is a time: the
/// confirmation covers the Nodes that were deleted until that time.
pub const CONFIRMATION: &str = "bobbin.dev/confirm-deletion";
/// The field of an entry that has the time of the deletion (RFC 3339).
pub const DELETED_AT: &str = "deletedAt";
/// The field of an entry with the state of the release of the Node's addresses: `Expected`, `Waiting`, `Held`, `Released` or
/// `Done`.
pub const STATE: &str = "state";
