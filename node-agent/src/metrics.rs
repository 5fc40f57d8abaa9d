//! The metrics of the agent: CNI calls and their stages, the state of the node's addresses and blocks, claims, resyncs and rare events.

mod calls;
mod claims;
mod definitions;
pub(crate) mod gauges;
mod register;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bobbin_cni_wire::Verb;
use bobbin_datapath::DriftSubject;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use calls::CallMetrics;
pub(crate) use claims::{AttemptOutcome, ClaimMetrics};
use register::INSTALLATION_PROBLEMS;
pub(crate) use register::Parts;
pub use register::list;

/// The upper bounds of the histograms' buckets. An ADD takes about 1 ms. An ADD that waits for an address takes up to `--add-timeout`.
const LATENCY_BUCKETS_SECONDS: [f64; 15] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 2.0, 10.0, 40.0];
/// The values of the label `result`.
const RESULTS: [&str; 2] = ["ok", "error"];

/// A histogram with the buckets of this agent.
fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS_SECONDS)
}

/// The labels of a metric about the addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressLabels {
    pool: String,
    family: &'static str,
    state: &'static str,
}

/// The labels of a metric about the blocks of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BlockLabels {
    pool: String,
    state: &'static str,
}

/// The label of a metric about objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

/// The label of a metric about results.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The label of a metric about repairs of the node's network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubjectLabel {
    subject: &'static str,
}

/// The label of a metric about the reasons of repairs or problems.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// A difference between the agent's state and the API server, which a resync repaired.
#[derive(Clone, Copy, Debug)]
pub enum ResyncRepair {
    /// An attachment had no assignment.
    AssignmentMissing,
    /// An assignment belonged to no attachment, and its pod was gone.
    AssignmentOrphaned,
    /// An assignment was from an earlier boot.
    AssignmentOfEarlierBoot,
    /// The API server listed a block of this node that the agent did not know.
    BlockUnknown,
    /// The agent counted a block as lost, but the block was free or belonged to this node.
    BlockLost,
    /// A block had outdated addresses of the Node.
    NodeAddresses,
}

impl ResyncRepair {
    /// The values of the label `reason`.
    const NAMES: [&str; 6] = [
        Self::AssignmentMissing.name(),
        Self::AssignmentOrphaned.name(),
        Self::AssignmentOfEarlierBoot.name(),
        Self::BlockUnknown.name(),
        Self::BlockLost.name(),
        Self::NodeAddresses.name(),
    ];

    /// The value of the label `reason`.
    const fn name(self) -> &'static str {
        match self {
            ResyncRepair::AssignmentMissing => "assignment_missing",
            ResyncRepair::AssignmentOrphaned => "assignment_orphaned",
            ResyncRepair::AssignmentOfEarlierBoot => "assignment_of_earlier_boot",
            ResyncRepair::BlockUnknown => "block_unknown",
            ResyncRepair::BlockLost => "block_lost",
            ResyncRepair::NodeAddresses => "node_addresses",
        }
    }
}

/// All metrics of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: CallMetrics,
    address_wait: Histogram,
    wiring_duration: Histogram,
    confirmation_wait: Histogram,
    /// How many addresses the agent assigned before their cool-down ended, because the pool had no other free address.
    pub early_reuses: Counter,
    /// How many ADDs waited for the confirmation of their assignment, because the API server had not recently confirmed the node's block.
    pub unproven_adds: Counter,
    /// How many addresses this node allocated although another attachment's assignment names them.
    pub duplicate_addresses: Counter,
    /// How many attachments GC removed because the runtime did not list them.
    pub gc_attachments_removed: Counter,
    /// How many attachments the agent removed because their network namespace or pod was gone and the runtime had not called DEL.
    pub stale_attachments_removed: Counter,
    /// How many stale checks, GC calls and resyncs removed nothing because they would have removed too much.
    pub breaker_trips: Counter,
    /// The number of restored files of the CNI plugin and the CNI configuration.
    pub installation_repairs: Counter,
    installation_problems: Family<ReasonLabel, Gauge>,
    /// When the last check for stale attachments ended, in seconds since 1970.
    pub stale_check_timestamp: Gauge,
    /// How many attachments have no link although their network namespace exists. The pods of these attachments have no network.
    pub broken_attachments: Gauge,
    resyncs: Family<ResultLabel, Counter>,
    resync_timestamp: Gauge,
    resync_repairs: Family<ReasonLabel, Counter>,
    datapath_passes: Family<ResultLabel, Counter>,
    datapath_repairs: Family<SubjectLabel, Counter>,
    addresses: Family<AddressLabels, Gauge>,
    blocks: Family<BlockLabels, Gauge>,
    attachments: Gauge,
    excluded_addresses: Gauge,
    waiting_adds: Gauge,
    unreadable_objects: Family<KindLabel, Gauge>,
    pending_assignments: Gauge,
    unconfirmed_assignments: Gauge,
    oldest_unconfirmed_assignment: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Records an answered CNI call. `code` is the error code of the CNI specification, and 0 for a success. `pool` is `None` if the call
    /// has no pool.
    pub fn observe_call(&self, verb: Verb, code: u32, pool: Option<&str>, took: Duration) {
        self.calls.observe(verb, code, pool.unwrap_or_default(), took);
    }

    /// Records the time in which an ADD allocated an address or gave up, all attempts together.
    pub fn observe_address_wait(&self, took: Duration) {
        self.address_wait.observe(took.as_secs_f64());
    }

    /// Records the time in which an ADD wired its pod, whether the wiring succeeded or not.
    pub fn observe_wiring(&self, took: Duration) {
        self.wiring_duration.observe(took.as_secs_f64());
    }

    /// Records the time that an ADD waited for the confirmation of its assignment, whether the confirmation arrived or not.
    pub fn observe_confirmation_wait(&self, took: Duration) {
        self.confirmation_wait.observe(took.as_secs_f64());
    }

    /// Records the end of a resync.
    pub fn resync_ended(&self, succeeded: bool) {
        self.resyncs.get_or_create(&result(succeeded)).inc();
        if succeeded {
            self.resync_timestamp.set(Timestamp::now().as_second());
        }
    }

    /// Records a repair by the resync.
    pub fn resync_repaired(&self, repair: ResyncRepair) {
        self.resync_repairs.get_or_create(&ReasonLabel { reason: repair.name() }).inc();
    }

    /// Sets the number of current problems of the CNI plugin and the CNI configuration. `reasons` has the event reason of each problem.
    pub fn set_installation_problems<'a>(&self, reasons: impl Iterator<Item = &'a str>) {
        let reasons: Vec<&str> = reasons.collect();
        for reason in INSTALLATION_PROBLEMS {
            let count = reasons.iter().filter(|one| **one == reason).count();
            let gauge = self.installation_problems.get_or_create(&ReasonLabel { reason });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Records the end of a reconcile pass over the node's network.
    pub fn datapath_pass_ended(&self, succeeded: bool) {
        self.datapath_passes.get_or_create(&result(succeeded)).inc();
    }

    /// Records that the agent reverted another program's change to the node's network.
    pub fn datapath_repaired(&self, subject: DriftSubject) {
        self.datapath_repairs.get_or_create(&SubjectLabel { subject: subject.name() }).inc();
    }
}

fn result(succeeded: bool) -> ResultLabel {
    let [ok, error] = RESULTS;
    ResultLabel { result: if succeeded { ok } else { error } }
}
