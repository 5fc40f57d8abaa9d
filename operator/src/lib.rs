//! The operator: carves pools into free blocks, reports their status, and releases what deleted nodes and pools leave behind.
//!
//! The operator works before or after a pod needs an address, so no pod waits for the operator. Several operators may run at
//! once.
//! Decisions are pure functions over the watch cache. Separate files read and write the API.

mod args;
mod cache;
mod context;
mod deleted_nodes;
mod events;
mod layout;
mod live_reads;
mod metrics;
mod pool;
mod run;
mod void_assignments;

pub use args::Args;
pub use run::{operate, run};
