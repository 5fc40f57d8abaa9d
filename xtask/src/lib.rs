//! Builds and packs Bobbin, and builds the programs of the test cluster. The crate `bobbin-e2e` also uses this library.

pub mod artifacts;
pub mod image;
pub mod programs;
pub mod release;
