//! The metrics of the agent: latencies of CNI calls and their stages, the state of the node's addresses, and rare events.

use std::time::Duration;

use bobbin_cni_wire::Verb;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// The upper bounds of the histograms' buckets. An ADD takes about 1 ms. An ADD that waits for an address takes up to `--add-timeout`.
const LATENCY_BUCKETS_SECONDS: [f64; 15] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 2.0, 10.0, 40.0];

/// The labels of a CNI call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    verb: &'static str,
    result: &'static str,
}

/// The labels of a metric about the addresses or blocks of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolStateLabels {
    /// The name of the pool.
    pub pool: String,
    /// The state of the addresses (`assigned`, `cooling` or `free`), or the name of the blocks' state.
    pub state: &'static str,
}

/// The label of a metric about objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The name of the kind in Kubernetes.
    pub kind: String,
}

/// All metrics of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    cni_call_duration: Family<CallLabels, Histogram>,
    wiring_duration: Histogram,
    confirmation_wait: Histogram,
    /// How many addresses the agent assigned before their cool-down ended, because the pool had no other free address.
    pub early_reuses: Counter,
    /// How many ADDs waited for the confirmation of their assignment, because the API server had not recently confirmed the node's block.
    pub unproven_adds: Counter,
    /// How many addresses this node allocated although another attachment's assignment names them.
    pub duplicate_addresses: Counter,
    /// How many times the agent reverted another program's change to the node's network.
    pub datapath_repairs: Counter,
    /// How many attachments GC removed because the runtime did not list them.
    pub gc_attachments_removed: Counter,
    /// How many attachments the agent removed because their network namespace or pod was gone and the runtime had not called DEL.
    pub stale_attachments_removed: Counter,
    /// How many stale checks and GC calls removed nothing because they would have removed too many attachments.
    pub breaker_trips: Counter,
    /// When the last check for stale attachments ended, in seconds since 1970.
    pub stale_check_timestamp: Gauge,
    /// How many addresses the node's blocks have, by pool and state.
    pub addresses: Family<PoolStateLabels, Gauge>,
    /// How many attachments have no link although their network namespace exists. The pods of these attachments have no network.
    pub broken_attachments: Gauge,
    /// How many objects the agent can't decode. The addresses of these objects count as in use.
    pub unreadable_objects: Family<KindLabel, Gauge>,
    /// How many blocks the node has, by pool and state.
    pub blocks: Family<PoolStateLabels, Gauge>,
    /// How many attachments the node has.
    pub attachments: Gauge,
    /// How many assignments wait to be created or deleted.
    pub pending_assignments: Gauge,
}

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS_SECONDS)
}

/// Registers a new metric under `agent_` and returns it. The registry adds the prefix `bobbin_` to every name and the suffix `_total` to
/// the names of counters.
fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(format!("agent_{name}"), help, metric.clone());
    metric
}

impl Metrics {
    /// Creates the agent's metrics and registers them.
    pub fn register(registry: &mut Registry) -> Metrics {
        let mut counter = |name, help| registered(registry, name, help, Counter::default());
        let early_reuses = counter(
            "early_reuses",
            "Addresses assigned before their cool-down ended, because the pool had no other free address",
        );
        let unproven_adds = counter(
            "unproven_adds",
            "ADDs that waited for the confirmation of their assignment, because the API server had not recently confirmed the node's block",
        );
        let duplicate_addresses = counter(
            "duplicate_addresses",
            "Addresses that this node allocated although another attachment's assignment names them",
        );
        let datapath_repairs = counter(
            "datapath_repairs",
            "Changes to the node's network that other programs made and the agent reverted",
        );
        let gc_attachments_removed =
            counter("gc_attachments_removed", "Attachments that GC removed because the runtime did not list them");
        let stale_attachments_removed = counter(
            "stale_attachments_removed",
            "Attachments removed because their pod or network namespace was gone and the runtime had not called DEL",
        );
        let breaker_trips = counter(
            "breaker_trips",
            "Stale checks and GC calls that removed nothing because they would have removed too many attachments",
        );
        let mut gauge = |name, help| registered(registry, name, help, Gauge::default());
        let stale_check_timestamp = gauge(
            "stale_check_timestamp_seconds",
            "When the last check for stale attachments ended, in seconds since 1970",
        );
        let broken_attachments = gauge(
            "broken_attachments",
            "Attachments that have lost their interface, so that their pods have no network",
        );
        let attachments = gauge("attachments", "Attachments on the node");
        let pending_assignments = gauge("pending_assignments", "Assignments that wait to be created or deleted");
        let mut histogram = |name, help| registered(registry, name, help, latency_histogram());
        let wiring_duration = histogram("wiring_duration_seconds", "Time that the kernel took to wire a pod");
        let confirmation_wait = histogram(
            "confirmation_wait_seconds",
            "Time that an ADD waited for the confirmation of its assignment, not counting the wiring",
        );
        Metrics {
            cni_call_duration: registered(
                registry,
                "cni_call_duration_seconds",
                "Time from a CNI call to its answer",
                Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            ),
            wiring_duration,
            confirmation_wait,
            early_reuses,
            unproven_adds,
            duplicate_addresses,
            datapath_repairs,
            gc_attachments_removed,
            stale_attachments_removed,
            breaker_trips,
            stale_check_timestamp,
            addresses: registered(
                registry,
                "addresses",
                "Addresses of the node's blocks by pool and state",
                Family::default(),
            ),
            broken_attachments,
            unreadable_objects: registered(
                registry,
                "unreadable_objects",
                "Objects that the agent can't decode, by kind; the addresses of these objects count as in use",
                Family::default(),
            ),
            blocks: registered(registry, "blocks", "The node's blocks by pool and state", Family::default()),
            attachments,
            pending_assignments,
        }
    }

    /// Records the duration and the result of an answered CNI call.
    pub fn observe_call(&self, verb: Verb, took: Duration, succeeded: bool) {
        let labels = CallLabels { verb: verb.word(), result: if succeeded { "ok" } else { "error" } };
        self.cni_call_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Records the time that the kernel took to wire a pod, whether the wiring succeeded or not.
    pub fn observe_wiring(&self, took: Duration) {
        self.wiring_duration.observe(took.as_secs_f64());
    }

    /// Records the time that an ADD waited for the confirmation of its assignment, whether the confirmation arrived or not.
    pub fn observe_confirmation_wait(&self, took: Duration) {
        self.confirmation_wait.observe(took.as_secs_f64());
    }
}
