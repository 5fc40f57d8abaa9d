//! Code with which the operator and the agent start and stop: durations in flags, renamed environment variables, and
//! signals.

mod duration;
mod renamed;
mod shutdown;

pub use duration::{DurationError, parse_duration, parse_duration_up_to};
pub use renamed::{RenamedVariable, refuse_renamed_variables};
pub use shutdown::shutdown_on_signal;
