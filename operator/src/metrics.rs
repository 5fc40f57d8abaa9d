//! The operator's metrics.

use std::sync::atomic::AtomicU64;

use bobbin_crds::AddressPoolStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

/// What the operator counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct OperatorMetrics {
    addresses: Family<AddressLabels, Gauge>,
    blocks: Family<StateLabels, Gauge>,
    conditions: Family<StateLabels, Gauge>,
    pub(crate) carved: Counter,
    pub(crate) status_writes: Counter,
    pub(crate) freed_blocks: Counter,
    pub(crate) freed_assignments: Counter,
    pub(crate) void_records: Gauge,
    pub(crate) nodes_gone: Gauge,
    pub(crate) leads: Gauge,
    unreadable: Family<KindLabels, Gauge>,
    pub(crate) watch_failing: Gauge<f64, AtomicU64>,
}

impl OperatorMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("pool_addresses", "Addresses of a pool, by family and state", self.addresses.clone());
        registry.register("pool_blocks", "Blocks of a pool, by state", self.blocks.clone());
        registry.register("pool_condition", "1 if the condition of the pool is true", self.conditions.clone());
        registry.register("operator_blocks_carved", "Blocks carved", self.carved.clone());
        registry.register("operator_status_writes", "Pool statuses written", self.status_writes.clone());
        registry.register("operator_blocks_freed", "Blocks of deleted nodes freed", self.freed_blocks.clone());
        registry.register(
            "operator_assignments_freed",
            "Assignments of deleted nodes freed",
            self.freed_assignments.clone(),
        );
        registry.register(
            "operator_void_records",
            "Assignments whose node does not have their block",
            self.void_records.clone(),
        );
        registry.register("operator_nodes_gone", "Deleted nodes that still own something", self.nodes_gone.clone());
        registry.register(
            "operator_unreadable_objects",
            "Objects that can't be read and count as in use, by kind",
            self.unreadable.clone(),
        );
        registry.register("operator_leads", "1 if this operator leads", self.leads.clone());
        registry.register(
            "operator_watch_failing_seconds",
            "For how long a watch has been failing",
            self.watch_failing.clone(),
        );
    }

    /// Shows how many objects of each kind can't be read.
    pub(crate) fn unreadable(&self, counts: impl IntoIterator<Item = (String, usize)>) {
        for (kind, count) in counts {
            self.unreadable.get_or_create(&KindLabels { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Shows a pool's status.
    pub(crate) fn pool(&self, pool: &str, status: &AddressPoolStatus) {
        for (family, counts) in [("ipv4", status.addresses.ipv4), ("ipv6", status.addresses.ipv6)] {
            let Some(counts) = counts else { continue };
            let all = [
                ("total", counts.total),
                ("reserved", counts.reserved),
                ("assigned", counts.assigned),
                ("cooling", counts.cooling),
                ("free", counts.free),
            ];
            for (state, count) in all {
                self.addresses.get_or_create(&AddressLabels { pool: pool.to_owned(), family, state }).set(count);
            }
        }
        let blocks = status.blocks;
        for (state, count) in [("total", blocks.total), ("claimed", blocks.claimed), ("free", blocks.free)] {
            self.blocks.get_or_create(&StateLabels { pool: pool.to_owned(), state }).set(count);
        }
        for (state, kind) in [("ready", "Ready"), ("exhausted", "Exhausted"), ("terminating", "Terminating")] {
            let holds =
                crate::status::find(&status.conditions, kind).is_some_and(|condition| condition.status == "True");
            self.conditions.get_or_create(&StateLabels { pool: pool.to_owned(), state }).set(i64::from(holds));
        }
    }

    /// Forgets a pool that is gone.
    pub(crate) fn no_pool(&self, pool: &str) {
        for family in ["ipv4", "ipv6"] {
            for state in ["total", "reserved", "assigned", "cooling", "free"] {
                self.addresses.remove(&AddressLabels { pool: pool.to_owned(), family, state });
            }
        }
        for state in ["total", "claimed", "free"] {
            self.blocks.remove(&StateLabels { pool: pool.to_owned(), state });
        }
        for state in ["ready", "exhausted", "terminating"] {
            self.conditions.remove(&StateLabels { pool: pool.to_owned(), state });
        }
    }
}
