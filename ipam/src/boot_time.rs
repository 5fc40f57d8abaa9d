//! A moment on the boot clock. Changes of the wall clock do not affect the boot clock. The crate `datapath` contains
//! the function that reads the boot clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of `CLOCK_BOOTTIME`, stored as the time since the node booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// The time from `earlier` to this moment; zero if `earlier` is a later moment.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment that lies `time` before this moment. If that would be before the boot, returns the moment of the
    /// boot.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }

    /// The moment that lies `time` after this moment.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}
