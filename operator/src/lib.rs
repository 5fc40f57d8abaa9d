//! The operator: carves pools into free blocks, keeps their status, takes back what deleted nodes and pools leave.
//!
//! `bobbin-all` starts it by [`run()`]. Its decisions are pure functions (`acceptance`, `carve`, `status`, `finish`, `node_gone`,
//! `void_record`) over what the watches have shown (`facts`); `keeper`, `reclaim` and `sweep` carry them out. It is never in
//! the way of a pod: what it does is done ahead of demand, or afterwards. Two of them at once do no harm.

mod acceptance;
mod args;
mod carve;
mod events;
mod facts;
mod feed;
mod finish;
mod fresh;
mod keeper;
mod layout;
mod metrics;
mod node_gone;
mod reclaim;
mod run;
mod slim;
mod status;
mod sweep;
mod void_record;

pub use args::Args;
pub use run::{operate, run};
