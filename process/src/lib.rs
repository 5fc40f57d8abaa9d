//! Code that the operator and the agent share as processes: durations in flags, and the stop on a signal.

mod duration;
mod shutdown;

pub use duration::{DurationError, parse_duration};
pub use shutdown::shutdown_on_signal;
