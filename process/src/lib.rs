//! What the operator and the agent share as processes: how a flag names a duration, and how a signal stops the program.

mod duration;
mod shutdown;

pub use duration::{DurationError, parse_duration};
pub use shutdown::shutdown_on_signal;
