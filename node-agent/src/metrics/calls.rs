//! The metrics of answered CNI calls. The time series of a pool exist as long as the pool.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{Verb, code};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{RESULTS, latency_histogram};

/// The verbs in the order of the specification.
pub(super) const VERBS: [&str; 6] = [
    Verb::Add.word(),
    Verb::Del.word(),
    Verb::Check.word(),
    Verb::Gc.word(),
    Verb::Status.word(),
    Verb::Version.word(),
];
const SUCCESS: u32 = 0;
/// The verbs and codes whose time series exist for each pool even before the first such call.
const CALLS_OF_POOL: [(Verb, u32); 8] = [
    (Verb::Add, SUCCESS),
    (Verb::Add, code::TRY_AGAIN_LATER.number),
    (Verb::Add, code::POOL_REFUSED.number),
    (Verb::Add, code::KERNEL_REFUSED.number),
    (Verb::Del, SUCCESS),
    (Verb::Del, code::TRY_AGAIN_LATER.number),
    (Verb::Check, SUCCESS),
    (Verb::Check, code::CHECK_FAILED.number),
];
/// The verbs and codes of calls that belong to no pool. Their time series exist even before the first such call.
const CALLS_WITHOUT_POOL: [(Verb, u32); 9] = [
    (Verb::Add, code::TRY_AGAIN_LATER.number),
    (Verb::Add, code::INVALID_ENVIRONMENT.number),
    (Verb::Add, code::POOL_REFUSED.number),
    (Verb::Del, SUCCESS),
    (Verb::Gc, SUCCESS),
    (Verb::Gc, code::TRY_AGAIN_LATER.number),
    (Verb::Status, SUCCESS),
    (Verb::Status, code::NOT_AVAILABLE.number),
    (Verb::Version, SUCCESS),
];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    verb: &'static str,
    code: u32,
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DurationLabels {
    verb: &'static str,
    result: &'static str,
}

/// The metrics of answered CNI calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CallMetrics {
    pub(super) calls: Family<CallLabels, Counter>,
    pub(super) durations: Family<DurationLabels, Histogram>,
    /// The labels of all time series that belong to a pool. Kept here, because the metrics library can't list its time series.
    of_pools: Arc<Mutex<BTreeSet<CallLabels>>>,
}

impl CallMetrics {
    pub(super) fn new() -> Self {
        let durations = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        for verb in VERBS {
            for result in RESULTS {
                drop(durations.get_or_create(&DurationLabels { verb, result }));
            }
        }
        let metrics = Self { calls: Family::default(), durations, of_pools: Arc::default() };
        for (verb, code) in CALLS_WITHOUT_POOL {
            drop(metrics.calls.get_or_create(&CallLabels { verb: verb.word(), code, pool: String::new() }));
        }
        metrics
    }

    pub(super) fn observe(&self, verb: Verb, code: u32, pool: &str, took: Duration) {
        let [ok, error] = RESULTS;
        let (verb, result) = (verb.word(), if code == SUCCESS { ok } else { error });
        self.durations.get_or_create(&DurationLabels { verb, result }).observe(took.as_secs_f64());
        let labels = CallLabels { verb, code, pool: pool.to_owned() };
        // Keep the lock until the time series exists and is in `of_pools`, so that `keep_pools` removes each time series of a deleted pool.
        let mut of_pools = self.of_pools.lock();
        self.calls.get_or_create(&labels).inc();
        if !pool.is_empty() {
            of_pools.insert(labels);
        }
    }

    /// Creates the time series of new pools, and removes the time series of pools that no longer exist.
    pub(super) fn keep_pools(&self, pools: &BTreeSet<String>) {
        let mut series = self.of_pools.lock();
        series.retain(|labels| {
            let exists = pools.contains(&labels.pool);
            if !exists {
                self.calls.remove(labels);
            }
            exists
        });
        for pool in pools {
            for (verb, code) in CALLS_OF_POOL {
                let labels = CallLabels { verb: verb.word(), code, pool: pool.clone() };
                if !series.contains(&labels) {
                    drop(self.calls.get_or_create(&labels));
                    series.insert(labels);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(metrics: &CallMetrics, verb: Verb, code: u32, pool: &str) -> Option<u64> {
        let labels = CallLabels { verb: verb.word(), code, pool: pool.to_owned() };
        metrics.calls.get(&labels).map(|counter| counter.get())
    }

    #[test]
    fn the_series_of_a_pool_exist_from_its_first_read_until_it_is_deleted() {
        let (metrics, took) = (CallMetrics::new(), Duration::from_millis(1));
        assert_eq!(count(&metrics, Verb::Add, SUCCESS, "p"), None);
        metrics.keep_pools(&BTreeSet::from(["p".to_owned()]));
        assert_eq!(count(&metrics, Verb::Add, SUCCESS, "p"), Some(0));
        metrics.observe(Verb::Add, SUCCESS, "p", took);
        metrics.observe(Verb::Add, code::CONTAINER_UNKNOWN.number, "p", took);
        metrics.observe(Verb::Add, SUCCESS, "q", took);
        metrics.keep_pools(&BTreeSet::from(["p".to_owned()]));
        assert_eq!(count(&metrics, Verb::Add, SUCCESS, "p"), Some(1));
        assert_eq!(count(&metrics, Verb::Add, SUCCESS, "q"), None, "pool q was deleted");
        metrics.keep_pools(&BTreeSet::new());
        assert_eq!(count(&metrics, Verb::Add, code::CONTAINER_UNKNOWN.number, "p"), None);
        assert_eq!(count(&metrics, Verb::Status, SUCCESS, ""), Some(0), "calls without a pool stay");
    }

    #[test]
    fn a_call_with_an_error_code_counts_as_an_error() {
        let metrics = CallMetrics::new();
        metrics.observe(Verb::Del, code::KERNEL_REFUSED.number, "", Duration::from_millis(1));
        let mut page = bobbin_observability::Metrics::default();
        let definition = bobbin_observability::metrics::Definition::new("took_seconds", "seconds", "Time");
        page.component("agent").add(&definition, metrics.durations.clone());
        let text = page.text();
        assert!(text.contains("bobbin_agent_took_seconds_count{verb=\"DEL\",result=\"error\"} 1\n"), "{text}");
        assert!(text.contains("bobbin_agent_took_seconds_count{verb=\"DEL\",result=\"ok\"} 0\n"), "{text}");
    }
}
