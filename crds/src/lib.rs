//! Bobbin's three custom resources, the names they share, and their generated manifests.
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

/// The finalizer of pools, and of blocks since their claim, while their addresses may be in use.
pub const FINALIZER: &str = "bobbin.dev/in-use";
/// The annotation on a pod or a namespace that selects the pool.
pub const POOL_ANNOTATION: &str = "bobbin.dev/pool";
/// The pool used when neither the pod nor its namespace selects one.
pub const DEFAULT_POOL: &str = "default";
