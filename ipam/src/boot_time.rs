//! A moment in boot time, which wall-clock jumps don't touch. The kernel crate reads the clock; nobody here does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of `CLOCK_BOOTTIME`: the time since the node booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// How long before this moment `earlier` was; zero if it was not before.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `time` before this one; the boot itself if that is later.
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
