//! What the agent counts: how long calls and their stages take, and what should be rare. Nothing is
//! decided from it.

use std::time::Duration;

use bobbin_cni_wire::Verb;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds: an ADD takes about 1 ms, a held one up to half a minute.
const BOUNDS: [f64; 15] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 2.0, 10.0, 40.0];

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    verb: &'static str,
    result: &'static str,
}

/// The addresses of the node's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolState {
    /// The pool.
    pub pool: String,
    /// Of addresses `held`, `cooling` or `free`; of blocks the name of their state.
    pub state: &'static str,
}

/// A kind of objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// As Kubernetes calls it.
    pub kind: String,
}

/// All of the agent's own counts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<Call, Histogram>,
    wiring: Histogram,
    recording: Histogram,
    /// Addresses handed out before they had rested, for want of others.
    pub early: Counter,
    /// ADDs from a block that the API server's recent word did not prove to be this node's: they wait for their record.
    pub unproven: Counter,
    /// Addresses that another attachment had a record of.
    pub duplicates: Counter,
    /// What another program had changed in the node's network and the agent put right.
    pub repairs: Counter,
    /// Attachments that GC freed.
    pub collected: Counter,
    /// Attachments that the sweep freed: their namespace or pod was gone, and nobody called DEL.
    pub swept: Counter,
    /// Passes that freed nothing because they would have freed too much.
    pub breaker: Counter,
    /// When the sweep last looked at all attachments, in seconds since 1970.
    pub last_sweep: Gauge,
    /// Addresses of the node's blocks.
    pub addresses: Family<PoolState, Gauge>,
    /// Attachments whose link is gone while their namespace exists: pods without a network.
    pub broken: Gauge,
    /// Objects that can't be read and count as in use.
    pub unreadable: Family<KindLabel, Gauge>,
    /// The node's blocks by state.
    pub blocks: Family<PoolState, Gauge>,
    /// Attachments on the node.
    pub attachments: Gauge,
    /// Records that wait to be written.
    pub pending: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

impl Metrics {
    /// Registers the counts.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            calls: Family::new_with_constructor(histogram),
            wiring: histogram(),
            recording: histogram(),
            early: Counter::default(),
            unproven: Counter::default(),
            duplicates: Counter::default(),
            repairs: Counter::default(),
            collected: Counter::default(),
            swept: Counter::default(),
            breaker: Counter::default(),
            last_sweep: Gauge::default(),
            addresses: Family::default(),
            broken: Gauge::default(),
            unreadable: Family::default(),
            blocks: Family::default(),
            attachments: Gauge::default(),
            pending: Gauge::default(),
        };
        registry.register("cni_call_duration_seconds", "Time from a CNI call to its answer", metrics.calls.clone());
        registry.register("wiring_duration_seconds", "Time that the kernel took to wire a pod", metrics.wiring.clone());
        registry.register(
            "verdict_wait_seconds",
            "Time that an ADD waited for its record after the wiring",
            metrics.recording.clone(),
        );
        registry.register(
            "early_reuse",
            "Addresses handed out before they had rested, for want of others",
            metrics.early.clone(),
        );
        registry.register(
            "unproven_adds",
            "ADDs that waited for their record because the API server's word on their block was not recent",
            metrics.unproven.clone(),
        );
        registry.register(
            "duplicates",
            "Addresses that another attachment had a record of",
            metrics.duplicates.clone(),
        );
        registry.register(
            "repairs",
            "What another program changed in the node's network and was put right",
            metrics.repairs.clone(),
        );
        registry.register("collected", "Attachments that GC freed", metrics.collected.clone());
        registry.register("swept", "Attachments that the sweep freed because nobody called DEL", metrics.swept.clone());
        registry.register(
            "breaker_stops",
            "Passes that freed nothing because they would have freed too much",
            metrics.breaker.clone(),
        );
        registry.register(
            "last_sweep_seconds",
            "When the sweep last looked at all attachments, since 1970",
            metrics.last_sweep.clone(),
        );
        registry.register(
            "node_addresses",
            "Addresses of the node's blocks by pool and state",
            metrics.addresses.clone(),
        );
        registry.register(
            "broken_attachments",
            "Attachments that have lost their interface: their pods run without a network",
            metrics.broken.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects that can't be read and count as in use, by kind",
            metrics.unreadable.clone(),
        );
        registry.register("node_blocks", "The node's blocks by pool and state", metrics.blocks.clone());
        registry.register("attachments", "Attachments on the node", metrics.attachments.clone());
        registry.register("records_pending", "Records that wait to be written", metrics.pending.clone());
        metrics
    }

    /// A call was answered.
    pub fn observe(&self, verb: Verb, took: Duration, well: bool) {
        let call = Call { verb: verb.word(), result: if well { "ok" } else { "error" } };
        self.calls.get_or_create(&call).observe(took.as_secs_f64());
    }

    /// A pod was wired, or was not.
    pub fn wired(&self, took: Duration) {
        self.wiring.observe(took.as_secs_f64());
    }

    /// An ADD had its verdict, or did not wait any longer.
    pub fn waited(&self, took: Duration) {
        self.recording.observe(took.as_secs_f64());
    }
}
