//! The operator's metrics: their names, help texts and values.

use std::sync::atomic::AtomicU64;

use bobbin_crds::AddressPoolStatus;
use bobbin_crds::pool::condition;
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
    unreadable_objects: Family<KindLabels, Gauge>,
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
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "operator_pool_addresses",
            "Addresses of a pool, by family and state",
            self.pool_addresses.clone(),
        );
        registry.register("operator_pool_blocks", "Blocks of a pool, by state", self.pool_blocks.clone());
        registry.register("operator_pool_condition", "1 if the pool's condition is true", self.pool_conditions.clone());
        registry.register("operator_blocks_carved", "Blocks that the operator created", self.blocks_carved.clone());
        registry.register(
            "operator_surplus_blocks_deleted",
            "Free blocks that the operator deleted because no node needed them",
            self.surplus_blocks_deleted.clone(),
        );
        registry.register(
            "operator_block_failures",
            "Blocks that the operator could not write; it tries each of them again later",
            self.block_failures.clone(),
        );
        registry.register(
            "operator_status_writes",
            "Pool statuses that the operator wrote",
            self.status_writes.clone(),
        );
        registry.register(
            "operator_blocks_released",
            "Blocks that the operator released because their node was deleted",
            self.blocks_released.clone(),
        );
        registry.register(
            "operator_assignments_deleted",
            "Assignments that the operator deleted because their node was deleted",
            self.assignments_deleted.clone(),
        );
        registry.register(
            "operator_void_assignments",
            "Assignments whose node does not own the block, or with an IPv4 or IPv6 address outside of the block",
            self.void_assignments.clone(),
        );
        registry.register(
            "operator_held_not_used_addresses",
            "Assigned addresses whose pod does not exist or does not use the address, by pool and family",
            self.held_not_used.clone(),
        );
        registry.register(
            "operator_used_not_held_addresses",
            "Addresses that pods use without an assignment, by pool and family",
            self.used_not_held.clone(),
        );
        registry.register(
            "operator_pod_comparison_timestamp_seconds",
            "Time of the last comparison of all assignments with all pods, in seconds since 1970. 0 means that there was no comparison yet",
            self.pod_comparison_timestamp_seconds.clone(),
        );
        registry.register(
            "operator_deleted_nodes",
            "Deleted nodes that still own a block or an assignment",
            self.deleted_nodes.clone(),
        );
        registry.register(
            "operator_held_nodes",
            "Deleted nodes whose blocks are held, because many Nodes were deleted together",
            self.held_nodes.clone(),
        );
        registry.register(
            "operator_denied_nodes",
            "Nodes that may claim no block and create no assignment, because ConfigMap bobbin-denied-nodes lists them",
            self.denied_nodes.clone(),
        );
        registry.register("operator_nodes", "Nodes that run Linux, so that each needs an agent", self.nodes.clone());
        registry.register(
            "operator_unreadable_objects",
            "Objects that can't be decoded and count as in use, by kind",
            self.unreadable_objects.clone(),
        );
        registry.register("operator_is_leader", "1 if this operator is the leader", self.is_leader.clone());
        registry.register(
            "operator_watch_failing_seconds",
            "Seconds since a watch began to fail; 0 if no watch is failing. If several watches are failing, the longest time counts",
            self.watch_failing_seconds.clone(),
        );
        registry.register(
            "operator_reconcile_failing_seconds",
            "Seconds for which all reconcile passes of a pool have failed, or for which one overdue pass has run. If several pools have this problem, the longest time counts",
            self.reconcile_failing_seconds.clone(),
        );
    }

    /// Sets the number of unreadable objects of each kind.
    pub(crate) fn set_unreadable(&self, counts: impl IntoIterator<Item = (String, usize)>) {
        for (kind, count) in counts {
            self.unreadable_objects.get_or_create(&KindLabels { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the gauges of a pool from the pool's status.
    pub(crate) fn set_pool(&self, pool: &str, status: &AddressPoolStatus) {
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
                self.pool_addresses.get_or_create(&AddressLabels { pool: pool.to_owned(), family, state }).set(count);
            }
        }
        let blocks = &status.blocks;
        for (state, count) in [("total", blocks.total), ("claimed", blocks.claimed), ("free", blocks.free)] {
            self.pool_blocks.get_or_create(&StateLabels { pool: pool.to_owned(), state }).set(count);
        }
        for (state, kind) in CONDITIONS {
            let holds =
                crate::pool::status::find(&status.conditions, kind).is_some_and(|condition| condition.status == "True");
            self.pool_conditions.get_or_create(&StateLabels { pool: pool.to_owned(), state }).set(i64::from(holds));
        }
    }

    /// Removes the gauges of a pool that was deleted, or that another operator reconciles.
    pub(crate) fn remove_pool(&self, pool: &str) {
        for family in ["ipv4", "ipv6"] {
            for state in ["total", "reserved", "assigned", "cooling", "free"] {
                self.pool_addresses.remove(&AddressLabels { pool: pool.to_owned(), family, state });
            }
        }
        for state in ["total", "claimed", "free"] {
            self.pool_blocks.remove(&StateLabels { pool: pool.to_owned(), state });
        }
        for (state, _) in CONDITIONS {
            self.pool_conditions.remove(&StateLabels { pool: pool.to_owned(), state });
        }
    }
}
