//! The clock that measures cool-downs: the time since the node booted, including time in suspend.

use std::time::Duration;

use bobbin_ipam::BootTime;
use nix::time::{ClockId, clock_gettime};

/// The time since boot, from `CLOCK_BOOTTIME`.
pub fn boot_time() -> BootTime {
    // Every Linux kernel since 2.6.39 has `CLOCK_BOOTTIME`, so the call can't fail.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
            let nanos = u32::try_from(time.tv_nsec()).unwrap_or_default();
            BootTime(Duration::new(seconds, nanos))
        })
        .unwrap_or_default()
}
