//! A moment on the boot clock, which jumps of the wall clock don't affect. The datapath crate reads that clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of `CLOCK_BOOTTIME`: the time since the node booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// The time from `earlier` to this moment; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `time` before this one, but not before the boot.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }

    /// The moment `time` after this one.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}
