//! One reconciler for each pool: accepts subnets, carves blocks, reports the status, and finishes the deletion of the pool.

mod accept;
mod carve;
mod delete;
mod error;
mod pass_health;
mod reconciler;
pub(crate) mod status;
mod supervisor;
mod survey;
mod write;

pub(crate) use carve::surplus::{self, SurplusQueue};
pub(crate) use pass_health::PassHealth;
pub(crate) use supervisor::run_all;
