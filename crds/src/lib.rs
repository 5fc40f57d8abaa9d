//! Bobbin's three custom resources, the object names that programs derive, and the generated manifests.
//!
//! This crate makes no API calls.

pub mod assignment;
pub mod block;
mod cel;
pub mod manifest;
pub mod name;
pub mod pool;
pub mod time;

pub use assignment::{IPAssignment, IPAssignmentSpec};
pub use block::{AddressBlock, AddressBlockSpec};
pub use pool::{AddressPool, AddressPoolSpec, AddressPoolStatus, DEFAULT_COOLDOWN, MAX_COOLDOWN};

/// The finalizer of pools and claimed blocks. It stays while addresses of the pool or block may be in use.
pub const FINALIZER: &str = "bobbin.dev/in-use";
/// The annotation that selects the pool for a pod, or for all pods of a namespace.
pub const POOL_ANNOTATION: &str = "bobbin.dev/pool";
/// The pool that Bobbin uses if neither the pod nor its namespace selects one.
pub const DEFAULT_POOL: &str = "default";
