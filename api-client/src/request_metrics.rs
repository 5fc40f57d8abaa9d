//! Counts requests to the API server, measures their time, and notes when a watch last received data.

mod observed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bobbin_observability::metrics::{Component, Definition, Label};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

pub(crate) use observed::ObserveRequests;

/// The verbs of requests, as in Kubernetes' audit log.
const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
/// The verbs of the requests that are timed. A watch is not timed, because its duration does not show how fast the API
/// server is.
const TIMED_VERBS: [&str; 6] = ["get", "list", "create", "update", "patch", "delete"];
/// The value of the label `code` for a request without an answer.
const NO_ANSWER: &str = "none";
/// The status codes whose counters exist from the start, for each verb.
const FIRST_CODES: [(&str, &[&str]); 7] = [
    ("get", &["200", "404", NO_ANSWER]),
    ("list", &["200", NO_ANSWER]),
    ("watch", &["200", NO_ANSWER]),
    ("create", &["201", "409", NO_ANSWER]),
    ("update", &["200", "409", NO_ANSWER]),
    ("patch", &["200", "409", NO_ANSWER]),
    ("delete", &["200", "404", NO_ANSWER]),
];
/// The upper bounds of the histogram's buckets.
const BUCKETS_SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabel {
    verb: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The metrics of a program's requests to the API server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<VerbLabel, Histogram>,
    /// When the watches of each resource last received data. The key is the resource's name in the URL.
    watches: Arc<Mutex<BTreeMap<String, Instant>>>,
    start: Instant,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS_SECONDS)),
            watches: Arc::default(),
            start: Instant::now(),
        };
        for (verb, codes) in FIRST_CODES {
            for code in codes {
                drop(metrics.requests.get_or_create(&RequestLabels { verb, code: (*code).to_owned() }));
            }
        }
        for verb in TIMED_VERBS {
            drop(metrics.durations.get_or_create(&VerbLabel { verb }));
        }
        metrics
    }
}

impl RequestMetrics {
    /// Adds the metrics to a component that watches objects of these kinds.
    pub fn register(&self, component: &mut Component<'_>, kinds: &'static [&'static str]) {
        let definition = Definition::new(
            "api_requests",
            "requests",
            "Requests to the API server. A watch counts when the API server accepts it",
        );
        let labels = &[
            Label::Only("verb", &VERBS),
            Label::Described("code", "the HTTP status code, or `none` without an answer"),
        ];
        component.add(&definition.labels(labels), self.requests.clone());
        let definition = Definition::new(
            "api_request_duration_seconds",
            "seconds",
            "Time from a request to the API server to the first part of its answer",
        );
        component.add(&definition.labels(&[Label::Only("verb", &TIMED_VERBS)]), self.durations.clone());
        let definition = Definition::new(
            "watch_age_seconds",
            "seconds",
            "Time since the API server last sent data for a watch of this kind. Without changes, it sends a bookmark about once a minute",
        );
        let ages = component.add(
            &definition.labels(&[Label::Described("kind", "the kind of the watched objects")]),
            Family::<KindLabel, Gauge<f64, AtomicU64>>::default(),
        );
        let metrics = self.clone();
        component.on_read(move || {
            for kind in kinds {
                ages.get_or_create(&KindLabel { kind }).set(metrics.watch_age(kind).as_secs_f64());
            }
        });
    }

    /// The time since a watch of this kind last received data. Before the first data, the time since the start of the program.
    pub fn watch_age(&self, kind: &str) -> Duration {
        // For each kind that Bobbin watches, the resource's name in the URL is the kind in lower case and an `s`.
        let resource = format!("{}s", kind.to_lowercase());
        self.watches.lock().get(&resource).unwrap_or(&self.start).elapsed()
    }

    fn watch_received(&self, resource: &str) {
        self.watches.lock().insert(resource.to_owned(), Instant::now());
    }

    fn answered(&self, verb: &'static str, code: String, took: Duration) {
        if TIMED_VERBS.contains(&verb) {
            self.durations.get_or_create(&VerbLabel { verb }).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&RequestLabels { verb, code }).inc();
    }
}
