//! Bobbin's three custom resources, the names of their objects, and the generated CRD manifests.
//!
//! This crate makes no API calls.

pub mod assignment;
pub mod block;
mod cel;
pub mod deleted_nodes;
pub mod denied_nodes;
pub mod manifest;
pub mod name;
pub mod pool;
pub mod time;

pub use assignment::{IPAssignment, IPAssignmentSpec, is_static_pod};
pub use block::{AddressBlock, AddressBlockSpec};
pub use pool::{AddressPool, AddressPoolSpec, AddressPoolStatus, DEFAULT_COOLDOWN, MAX_COOLDOWN};

/// The finalizer of pools and claimed blocks. The finalizer stays on an object while addresses of the object may be in
/// use.
pub const FINALIZER: &str = "bobbin.dev/in-use";
/// The annotation that selects the pool for a pod, or for all pods of a namespace.
pub const POOL_ANNOTATION: &str = "bobbin.dev/pool";
/// The pool that Bobbin uses if neither the pod nor its namespace selects a pool.
pub const DEFAULT_POOL: &str = "default";
