//! Every wait of the agent that the protocol between agents, operator and API server depends on, in one place and one order.
//!
//! The order must hold: bookmark (60 s) < [`Times::silence`] < half of `--node-gone-seconds` < `--node-gone-seconds`, and the reconnect of a
//! watch (5 s) < [`Times::quiet_after_outage`]. Tests shorten all of them together by one factor.

use std::time::Duration;

/// The agent's protocol times, each multiplied by one scale.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    scale: f64,
    node_gone: Duration,
}

impl Times {
    /// `scale` is 1 in production. `node_gone` is how long the operator waits before it frees what a deleted node held; it is not scaled.
    pub fn new(scale: f64, node_gone: Duration) -> Times {
        Times { scale: if scale.is_finite() && scale > 0.0 { scale } else { 1.0 }, node_gone }
    }

    fn scaled(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).mul_f64(self.scale)
    }

    /// A watch of own blocks or own Node that showed neither event nor bookmark for this long proves nothing any more. The API server
    /// sends a bookmark about once a minute, but not always for a kind in which nothing changes: silence is no sign of trouble.
    pub fn silence(self) -> Duration {
        self.scaled(90)
    }

    /// The API server was away for longer than this: it may have been restored from an older snapshot.
    pub fn outage(self) -> Duration {
        self.scaled(10)
    }

    /// How long a block that was claimed right after an outage stays out of service, so that nodes with residents in it come first.
    pub fn quiet_after_outage(self) -> Duration {
        self.scaled(15)
    }

    /// The longest pause before a broken watch of own blocks or own Node begins again.
    pub fn watch_reconnect(self) -> Duration {
        self.scaled(5)
    }

    /// How long the route of a claimed block may fail to be written before the block goes back.
    pub fn export_deadline(self) -> Duration {
        self.scaled(60)
    }

    /// How long routers get to forget a withdrawn block before another node may have it.
    pub fn fabric_settle(self) -> Duration {
        self.scaled(2)
    }

    /// Two live looks at a pod that is gone are at least this far apart.
    pub fn pod_gone_apart(self) -> Duration {
        self.scaled(300)
    }

    /// How often addresses that another attachment has a record of are looked at.
    pub fn passed_over_recheck(self) -> Duration {
        self.scaled(60)
    }

    /// A 401 for longer than this is a sign of trouble; shorter ones are a token being renewed.
    pub fn unauthorized(self) -> Duration {
        self.scaled(60)
    }

    /// How long an agent may have been down and still trust the blocks in its checkpoint without the API server's word.
    pub fn longest_absence(self) -> Duration {
        self.node_gone / 2
    }

    /// The interval of the resync, before jitter.
    pub fn resync(self, interval: Duration) -> Duration {
        interval.mul_f64(self.scale)
    }
}

/// How long an ADD waits for the first read of own blocks after the agent has started.
pub const FIRST_READ_TIMEOUT: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_keep_their_order_with_the_least_node_gone_seconds_that_the_chart_takes() {
        let node_gone = Duration::from_mins(4);
        for scale in [1.0, 0.1, 0.02] {
            let times = Times::new(scale, node_gone);
            assert!(Duration::from_mins(1).mul_f64(scale) < times.silence());
            assert!(times.silence() < times.longest_absence());
            assert!(times.longest_absence() < node_gone);
            assert!(times.watch_reconnect() < times.quiet_after_outage());
        }
    }
}
