//! The three kinds that Bobbin adds to Kubernetes, the words they share, and their generated manifests.
//!
//! Everybody reads these types; nobody here talks to an API server.

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

/// The finalizer that pools, and blocks from their claim on, carry while addresses of theirs may be in use.
pub const FINALIZER: &str = "bobbin.dev/in-use";
/// The annotation on a pod or a namespace that names the pool its pods get addresses from.
pub const POOL_ANNOTATION: &str = "bobbin.dev/pool";
/// The pool used when neither the pod nor its namespace selects one.
pub const DEFAULT_POOL: &str = "default";
