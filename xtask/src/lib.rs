//! Builds and packs Bobbin, and builds the programs of the test cluster. The test crate uses this too.

pub mod artifacts;
pub mod image;
pub mod programs;
