//! The metrics of claims.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{ResultLabel, latency_histogram};

/// The outcome of one attempt to claim one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    /// The node has the block.
    Claimed,
    /// Another node has the block, or the agent's copy of the block was out of date.
    LostRace,
    /// The block does not exist.
    NotFound,
    /// The API server refused the claim.
    Refused,
    /// The API server did not answer. The claim then reads the block.
    Unknown,
}

impl AttemptOutcome {
    /// The values of the label `result`.
    pub(super) const NAMES: [&str; 5] = [
        Self::Claimed.name(),
        Self::LostRace.name(),
        Self::NotFound.name(),
        Self::Refused.name(),
        Self::Unknown.name(),
    ];

    /// The value of the label `result`.
    const fn name(self) -> &'static str {
        match self {
            AttemptOutcome::Claimed => "claimed",
            AttemptOutcome::LostRace => "lost_race",
            AttemptOutcome::NotFound => "not_found",
            AttemptOutcome::Refused => "refused",
            AttemptOutcome::Unknown => "unknown",
        }
    }
}

/// The metrics of claims. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ClaimMetrics {
    pub(super) attempts: Family<ResultLabel, Counter>,
    pub(super) duration: Histogram,
}

impl Default for ClaimMetrics {
    fn default() -> Self {
        let attempts = Family::default();
        for result in AttemptOutcome::NAMES {
            drop(attempts.get_or_create(&ResultLabel { result }));
        }
        Self { attempts, duration: latency_histogram() }
    }
}

impl ClaimMetrics {
    /// Records the API server's answer to one attempt.
    pub(crate) fn attempted(&self, outcome: AttemptOutcome) {
        self.attempts.get_or_create(&ResultLabel { result: outcome.name() }).inc();
    }

    /// Records the end of a claim.
    pub(crate) fn ended(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }
}
