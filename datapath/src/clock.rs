//! The clock in which addresses rest: time since the node booted, suspended or not.

use std::time::Duration;

use bobbin_ipam::BootTime;
use nix::time::{ClockId, clock_gettime};

/// Now, in `CLOCK_BOOTTIME`.
pub fn boot_time() -> BootTime {
    // The clock exists on every kernel since 2.6.39: there is no error to hand on.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
            let nanos = u32::try_from(time.tv_nsec()).unwrap_or_default();
            BootTime(Duration::new(seconds, nanos))
        })
        .unwrap_or_default()
}
