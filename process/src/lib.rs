//! What the operator and the agent share for their start and stop: parsing durations in flags, refusing renamed
//! environment variables, and handling signals.

mod duration;
mod renamed;
mod shutdown;

pub use duration::{DurationError, parse_duration, parse_duration_up_to};
pub use renamed::{RenamedVariable, refuse_renamed_variables};
pub use shutdown::shutdown_on_signal;
