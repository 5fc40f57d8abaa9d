//! The times that the operator waits before it deletes void assignments and denies nodes.

use std::time::Duration;

/// The waits. The operator multiplies all waits by the same scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    scale: f64,
}

impl Times {
    /// `scale` is 1 in production.
    pub(crate) fn new(scale: f64) -> Self {
        Self { scale: if scale.is_finite() && scale > 0.0 { scale } else { 1.0 } }
    }

    fn scaled(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).mul_f64(self.scale)
    }

    /// How often the operator looks for void assignments, and for nodes whose agents break the rules.
    pub(crate) fn pass_interval(self) -> Duration {
        self.scaled(5)
    }

    /// How long the watch cache must show an assignment as void before its first check. A valid assignment can look void
    /// for a short time, because a claim or a watch event arrives late.
    pub(crate) fn min_orphan_age(self) -> Duration {
        self.scaled(60)
    }

    /// The time between two checks of one assignment. The time is long enough for each agent to list its own
    /// assignments at least once between the two checks.
    pub(crate) fn check_interval(self) -> Duration {
        self.scaled(15 * 60)
    }

    /// How long a forged assignment counts against its node after the operator has deleted the assignment.
    pub(crate) fn forgery_memory(self) -> Duration {
        self.scaled(10 * 60)
    }

    /// How long a node may still claim blocks after the node exceeds its maximum or the pool no longer admits the node. The agent needs
    /// this time to notice the change.
    pub(crate) fn claim_grace(self) -> Duration {
        self.scaled(60)
    }

    /// How often the operator reads the ConfigMap of denied nodes.
    pub(crate) fn denied_refresh(self) -> Duration {
        self.scaled(30)
    }
}
