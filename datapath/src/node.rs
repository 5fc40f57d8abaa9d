//! What the node needs beside its attachments: set-up, exported blocks, and the reconcile pass over all of it.

pub(crate) mod desired;
mod drift;
pub(crate) mod export;
pub(crate) mod reconcile;
pub(crate) mod setup;

pub use desired::{DesiredState, DirectRoute};
pub use drift::{Drift, DriftKind};
