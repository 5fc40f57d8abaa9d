//! The time since boot. Deadlines use the boot clock, because the wall clock may jump.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The current time of `CLOCK_BOOTTIME`.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
