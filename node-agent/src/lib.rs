//! The node agent: claims blocks, assigns addresses, wires pods, programs kernel routes, and keeps the API server's records and the
//! kernel in step. `bobbin-all` calls [`run()`].
//!
//! `run` puts the parts together; `serve` and `verb` answer the runtime; `ledger` owns who has what; `journal` keeps it; `claim`,
//! `stock`, `adopt` and `record` speak to the API server; `repair`, `stale_attachments` and `restore` hold ledger and kernel together.

mod adopt;
mod agent;
mod args;
mod choose;
mod claim;
mod direct;
mod event;
mod exported;
mod install;
mod journal;
mod late;
mod leave;
mod ledger;
mod metrics;
mod pod_gone;
mod record;
mod repair;
mod restore;
mod run;
mod serve;
mod stale_attachments;
mod stock;
mod turns;
mod verb;
mod waiting_pods;
mod watch;

pub use claim::{ClaimError, Claims, ExportFailed, Exports};
pub use ledger::{HeldBlock, Ledger};
pub use run::run;
pub use watch::ClusterView;
