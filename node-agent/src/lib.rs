//! The node agent: claims blocks, allocates addresses, wires pods and programs kernel routes. `bobbin-all` calls [`run()`].
//!
//! - `run` starts and stops the agent; `agent` holds the parts that verbs and tasks share.
//! - `cni` answers the container runtime.
//! - `state` owns blocks, addresses and attachments, and their checkpoint.
//! - `blocks`, `assignments` and `cluster` talk to the API server.
//! - `resync` compares the state with the API server and the kernel; `network` maintains the kernel's routes.
//! - `host` owns the run directory and the installed plugin.

mod agent;
mod args;
mod assignments;
mod blocks;
mod cluster;
mod cni;
mod events;
mod host;
mod metrics;
mod network;
mod recent_activity;
mod resync;
mod run;
mod state;

pub use blocks::claim::{ClaimError, Claims, ExportError, Exports};
pub use blocks::simulated_node::SimulatedNode;
pub use cluster::ClusterCache;
pub use cluster::freshness::{Proof, ProofGeneration};
pub use metrics::list as list_metrics;
pub use run::run;
pub use state::{BlockEvent, BlockState, ClaimedBlock, Next, NodeState, ReleaseStage, SettledState};
