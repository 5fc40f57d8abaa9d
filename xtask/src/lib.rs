//! Builds and packs Bobbin, and builds the programs of the test cluster. The crate `bobbin-e2e` uses this library, too.

pub mod artifacts;
pub mod image;
pub mod programs;
