//! bobbin-e2e

pub mod control_plane;
pub mod programs;
