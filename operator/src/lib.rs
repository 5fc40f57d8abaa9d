//! The operator carves pools into free blocks, reports the status of pools, and cleans up after deleted nodes and pools.
//!
//! The operator carves blocks before pods need them, and cleans up in the background, so that no pod waits for the
//! operator. Several operators may run at once. Decisions are pure functions over the watch cache. Separate files read
//! from and write to the API server.

mod args;
mod cache;
mod config_map;
mod context;
mod deleted_nodes;
mod denied_nodes;
mod events;
mod live_reads;
mod metrics;
mod pod_comparison;
mod pool;
mod run;
mod times;
pub mod uninstall_check;
mod void_assignments;

pub use args::Args;
pub use metrics::list as list_metrics;
pub use run::{operate, run};
