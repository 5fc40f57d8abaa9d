//! The clock that cool-downs are measured in: time since the node booted, including suspended time.

use std::time::Duration;

use bobbin_ipam::BootTime;
use nix::time::{ClockId, clock_gettime};

/// The time since boot, from `CLOCK_BOOTTIME`.
pub fn boot_time() -> BootTime {
    // Every kernel since 2.6.39 has this clock, so the call can't fail.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
            let nanos = u32::try_from(time.tv_nsec()).unwrap_or_default();
            BootTime(Duration::new(seconds, nanos))
        })
        .unwrap_or_default()
}
