//! The node agent: claims blocks, assigns addresses, wires pods, programs kernel routes, and keeps the API server's records and the
//! kernel in step. `bobbin-all` calls [`run()`].
//!
//! `run` puts the parts together; `serve` and `verb` answer the runtime; `ledger` owns who has what and the state of every block;
//! `journal` keeps it; `blocks`, `claim`, `stock` and `record` speak to the API server; `resync` compares; `repair`,
//! `stale_attachments` and `restore` hold ledger and kernel together.

mod agent;
mod args;
mod atomic_file;
mod attachment_lock;
mod block_checkpoint;
mod blocks;
mod choose;
mod claim;
mod direct;
mod event;
mod exported;
mod freshness;
mod install;
mod journal;
mod late;
mod leave;
mod ledger;
mod metrics;
mod own_watch;
mod pod_gone;
mod record;
mod record_watch;
mod repair;
mod restore;
mod resync;
mod run;
mod run_dir;
mod serve;
mod simulated_node;
mod stale_attachments;
mod stock;
mod times;
mod verb;
mod waiting_pods;
mod watch;

pub use claim::{ClaimError, Claims, ExportFailed, Exports};
pub use ledger::{HeldBlock, Ledger};
pub use run::run;
pub use simulated_node::SimulatedNode;
pub use watch::ClusterView;
