//! Defines the waits of the protocol between agents, operator and API server.
//!
//! [`Times::max_watch_silence`] must be longer than the interval of bookmarks (60 s), and shorter than half of `--node-grace-period`.
//! [`Times::quiet_time`] must be longer than the longest pause before a watch restarts (5 s). Tests make the
//! times of this module shorter, all by the same factor. The grace period keeps its length.

use std::time::Duration;

/// The agent's protocol times. `scale` multiplies all of them except `node_grace_period`.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    scale: f64,
    node_grace_period: Duration,
}

impl Times {
    /// Creates the protocol times. `scale` is 1 in production, and does not apply to `node_grace_period`. After the grace period, the
    /// operator releases the blocks and addresses of a deleted Node.
    pub fn new(scale: f64, node_grace_period: Duration) -> Times {
        Times { scale: if scale.is_finite() && scale > 0.0 { scale } else { 1.0 }, node_grace_period }
    }

    fn scaled(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).mul_f64(self.scale)
    }

    /// How long a block stays proven after the last event or bookmark on the watches of the node's blocks and Node. The API server sends a
    /// bookmark about once a minute, but may send none for a kind in which nothing changes. Because a silent watch may be healthy, silence
    /// only suspends the proofs: the next event makes them valid again.
    pub fn max_watch_silence(self) -> Duration {
        self.scaled(90)
    }

    /// After an API outage longer than this, the agent assumes that etcd may have been restored from an older snapshot.
    pub fn outage_threshold(self) -> Duration {
        self.scaled(10)
    }

    /// How long a newly claimed block stays out of service after an outage. If etcd was restored from an older snapshot, pods on other
    /// nodes may use addresses of the block although their assignments are missing. During the quiet time, the other nodes create the
    /// missing assignments, so that this node does not assign these addresses to its own pods.
    pub fn quiet_time(self) -> Duration {
        self.scaled(15)
    }

    /// The pause before the agent tries again to create an assignment whose name is already taken. The agent tries again only during the
    /// quiet time.
    pub fn create_retry(self) -> Duration {
        self.scaled(1)
    }

    /// The longest pause before the agent restarts a broken watch of its blocks or Node.
    pub fn watch_reconnect(self) -> Duration {
        self.scaled(5)
    }

    /// How long the agent tries to write the route of a claimed block before it releases the block.
    pub fn export_deadline(self) -> Duration {
        self.scaled(60)
    }

    /// How much time routers get to drop the route of a released block before another node may claim the block.
    pub fn route_withdrawal_delay(self) -> Duration {
        self.scaled(2)
    }

    /// The minimum time between the two reads that prove that a pod is gone.
    pub fn pod_absence_interval(self) -> Duration {
        self.scaled(300)
    }

    /// How often the agent rechecks addresses that it excluded because another attachment's assignment names them.
    pub fn conflict_recheck_interval(self) -> Duration {
        self.scaled(60)
    }

    /// How long the API server may answer 401 before all proofs become invalid. Shorter periods of 401 answers are normal while a token is
    /// renewed.
    pub fn unauthorized(self) -> Duration {
        self.scaled(60)
    }

    /// If no agent ran on the node for at most this time, the next agent uses the checkpoint's blocks at once. After a longer time, the
    /// agent first reads its blocks from the API server.
    pub fn max_trusted_absence(self) -> Duration {
        self.node_grace_period / 2
    }

    /// The time between two passes of the resync, before jitter is added.
    pub fn resync(self, interval: Duration) -> Duration {
        interval.mul_f64(self.scale)
    }
}

/// How long an ADD waits for the first read of this node's blocks after the agent has started.
pub const FIRST_READ_TIMEOUT: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::run_dir::heartbeat::HEARTBEAT_INTERVAL;

    #[test]
    fn the_times_keep_their_order_with_the_shortest_grace_period_that_the_chart_admits() {
        let node_grace_period = Duration::from_mins(4);
        for scale in [1.0, 0.1, 0.02] {
            let times = Times::new(scale, node_grace_period);
            assert!(Duration::from_mins(1).mul_f64(scale) < times.max_watch_silence());
            assert!(times.max_watch_silence() < times.max_trusted_absence());
            assert!(times.max_trusted_absence() < node_grace_period);
            assert!(times.watch_reconnect() < times.quiet_time());
        }
    }

    #[test]
    fn a_restart_within_seconds_of_a_crash_is_shorter_than_an_outage() {
        let times = Times::new(1.0, Duration::from_mins(4));
        let kubelet_restarts_within = Duration::from_secs(5);
        assert!(HEARTBEAT_INTERVAL + kubelet_restarts_within < times.outage_threshold());
        assert!(HEARTBEAT_INTERVAL * 10 < times.max_trusted_absence());
    }
}
