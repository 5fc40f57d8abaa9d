//! The parts of the node's network that belong to no single attachment: setup, exported blocks, and the reconcile pass.

pub(crate) mod desired;
mod drift;
pub(crate) mod export;
pub(crate) mod occupied;
pub(crate) mod reconcile;
pub(crate) mod setup;

pub use desired::{DesiredState, DirectRoute};
pub use drift::{Drift, DriftKind, DriftSubject};
pub use occupied::{NetworkUse, OccupiedNet};
