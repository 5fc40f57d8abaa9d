//! The operator's metrics and their values.

mod register;

use std::sync::atomic::AtomicU64;

use bobbin_crds::AddressPoolStatus;
use bobbin_messages::condition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

pub use register::list;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AddressLabels {
    pool: String,
    family: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    pool: String,
    state: &'static str,
}

/// A pool and one of its address families.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct FamilyLabels {
    pub(crate) pool: String,
    pub(crate) family: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];
const ADDRESS_STATES: [&str; 5] = ["total", "reserved", "assigned", "cooling", "free"];
const BLOCK_STATES: [&str; 3] = ["total", "claimed", "free"];
/// The result of a reconcile pass.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PassResult {
    Ok,
    /// The pass read outdated objects, so another pass follows soon.
    Outdated,
    Error,
}

impl PassResult {
    /// The values of the label `result`.
    const NAMES: [&str; 3] = [Self::Ok.name(), Self::Outdated.name(), Self::Error.name()];

    /// The value of the label `result`.
    const fn name(self) -> &'static str {
        match self {
            PassResult::Ok => "ok",
            PassResult::Outdated => "outdated",
            PassResult::Error => "error",
        }
    }
}

/// The value of the label `state` for each type of condition.
const CONDITIONS: [(&str, &str); 7] = [
    ("ready", condition::READY),
    ("accepted", condition::ACCEPTED),
    ("blocks_exhausted", condition::BLOCKS_EXHAUSTED),
    ("exhausted", condition::EXHAUSTED),
    ("address_conflict", condition::ADDRESS_CONFLICT),
    ("misconfigured", condition::MISCONFIGURED),
    ("terminating", condition::TERMINATING),
];

/// Counters and gauges of the operator.
#[derive(Clone, Debug, Default)]
pub(crate) struct OperatorMetrics {
    pool_addresses: Family<AddressLabels, Gauge>,
    pool_blocks: Family<StateLabels, Gauge>,
    pool_conditions: Family<StateLabels, Gauge>,
    free_blocks: Family<PoolLabel, Gauge>,
    free_blocks_target: Family<PoolLabel, Gauge>,
    unreadable_objects: Family<KindLabels, Gauge>,
    passes: Family<ResultLabel, Counter>,
    pub(crate) blocks_carved: Counter,
    pub(crate) surplus_blocks_deleted: Counter,
    pub(crate) block_failures: Counter,
    pub(crate) status_writes: Counter,
    pub(crate) blocks_released: Counter,
    pub(crate) assignments_deleted: Counter,
    pub(crate) void_assignments: Gauge,
    pub(crate) held_not_used: Family<FamilyLabels, Gauge>,
    pub(crate) used_not_held: Family<FamilyLabels, Gauge>,
    pub(crate) pod_comparison_timestamp_seconds: Gauge,
    pub(crate) deleted_nodes: Gauge,
    pub(crate) held_nodes: Gauge,
    pub(crate) denied_nodes: Gauge,
    pub(crate) nodes: Gauge,
    pub(crate) is_leader: Gauge,
    pub(crate) watch_failing_seconds: Gauge<f64, AtomicU64>,
    pub(crate) reconcile_failing_seconds: Gauge<f64, AtomicU64>,
}

impl OperatorMetrics {
    /// Sets the number of unreadable objects of each kind.
    pub(crate) fn set_unreadable(&self, counts: impl IntoIterator<Item = (String, usize)>) {
        for (kind, count) in counts {
            self.unreadable_objects.get_or_create(&KindLabels { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the gauges of a pool from the pool's status.
    pub(crate) fn set_pool(&self, pool: &str, status: &AddressPoolStatus) {
        for (family, counts) in FAMILIES.into_iter().zip([status.addresses.ipv4, status.addresses.ipv6]) {
            let Some(counts) = counts else { continue };
            let all = [counts.total, counts.reserved, counts.assigned, counts.cooling, counts.free];
            for (state, count) in ADDRESS_STATES.into_iter().zip(all) {
                self.pool_addresses.get_or_create(&AddressLabels { pool: pool.to_owned(), family, state }).set(count);
            }
        }
        let blocks = &status.blocks;
        for (state, count) in BLOCK_STATES.into_iter().zip([blocks.total, blocks.claimed, blocks.free]) {
            self.pool_blocks.get_or_create(&StateLabels { pool: pool.to_owned(), state }).set(count);
        }
        for (state, kind) in CONDITIONS {
            let holds =
                crate::pool::status::find(&status.conditions, kind).is_some_and(|condition| condition.status == "True");
            self.pool_conditions.get_or_create(&StateLabels { pool: pool.to_owned(), state }).set(i64::from(holds));
        }
    }

    /// Sets how many free blocks of a pool exist, and how many should exist.
    pub(crate) fn set_free_blocks(&self, pool: &str, free: u64, target: u64) {
        let labels = PoolLabel { pool: pool.to_owned() };
        for (gauges, count) in [(&self.free_blocks, free), (&self.free_blocks_target, target)] {
            gauges.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a reconcile pass over a pool.
    pub(crate) fn pass_ended(&self, result: PassResult) {
        self.passes.get_or_create(&ResultLabel { result: result.name() }).inc();
    }

    /// Removes the gauges of a pool that was deleted, or that another operator reconciles.
    pub(crate) fn remove_pool(&self, pool: &str) {
        for family in FAMILIES {
            for state in ADDRESS_STATES {
                self.pool_addresses.remove(&AddressLabels { pool: pool.to_owned(), family, state });
            }
        }
        for state in BLOCK_STATES {
            self.pool_blocks.remove(&StateLabels { pool: pool.to_owned(), state });
        }
        let labels = PoolLabel { pool: pool.to_owned() };
        self.free_blocks.remove(&labels);
        self.free_blocks_target.remove(&labels);
        for (state, _) in CONDITIONS {
            self.pool_conditions.remove(&StateLabels { pool: pool.to_owned(), state });
        }
    }
}
