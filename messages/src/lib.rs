//! The catalog of Bobbin's events and condition reasons, and the names under which the programs report events.
//!
//! The programs can publish only events and conditions of this catalog. `cargo xtask messages` writes the catalog into
//! docs/reference/messages.md, and checks its texts against the sources.

pub mod condition;
pub mod event;
pub mod reporter;

pub use condition::Condition;
pub use event::{Event, EventType};
pub use reporter::Reporter;
