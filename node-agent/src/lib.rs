//! The node agent: claims blocks, assigns addresses, wires pods, programs kernel routes, and keeps the API server's records and the
//! kernel in step. `bobbin-all` calls [`run()`].
//!
//! `run` puts the parts together; `serve` and `verb` answer the runtime; `ledger` owns who has what and the state of every block;
//! `journal` keeps it; `blocks`, `claim`, `stock` and `record` speak to the API server; `resync` compares; `repair`,
//! `stale_attachments` and `restore` hold ledger and kernel together.

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
mod resync;
mod run;
mod state;

pub use blocks::claim::{ClaimError, Claims, ExportError, Exports};
pub use blocks::simulated_node::SimulatedNode;
pub use cluster::ClusterCache;
pub use run::run;
pub use state::{HeldBlock, NodeState};
