//! Gives each metric of the operator its name, labels, unit and meaning.

use bobbin_api_client::RequestMetrics;
use bobbin_observability::metrics::{Component, Definition, Label, Listed};
use bobbin_observability::{Metrics as Page, Watchdog};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::{ADDRESS_STATES, BLOCK_STATES, CONDITIONS, FAMILIES, KindLabels, OperatorMetrics, PassResult, ResultLabel};

/// The kinds of objects that the operator watches.
const WATCHED_KINDS: [&str; 5] = ["AddressBlock", "AddressPool", "IPAssignment", "Node", "ServiceCIDR"];
/// The names of the conditions.
const CONDITION_STATES: [&str; CONDITIONS.len()] = {
    let mut names = [""; CONDITIONS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = CONDITIONS[index].0;
        index += 1;
    }
    names
};
const POOL: Label = Label::Described("pool", "the name of the pool");
const FAMILY: Label = Label::Only("family", &FAMILIES);

/// Lists the operator's metrics for the documents.
pub fn list() -> Vec<Listed> {
    let mut page = Page::default();
    OperatorMetrics::default().register(&mut page, &RequestMetrics::default(), Watchdog::default());
    page.listed().to_vec()
}

impl OperatorMetrics {
    /// Registers the metrics of the operator, of its requests and of its loops.
    pub(crate) fn register(&self, page: &mut Page, requests: &RequestMetrics, watchdog: Watchdog) {
        for result in PassResult::NAMES {
            drop(self.passes.get_or_create(&ResultLabel { result }));
        }
        for kind in WATCHED_KINDS {
            drop(self.unreadable_objects.get_or_create(&KindLabels { kind: kind.to_owned() }));
        }
        let mut component = page.component("operator");
        component.add_build_info(env!("CARGO_PKG_VERSION"));
        self.register_pools(&mut component);
        self.register_blocks(&mut component);
        self.register_nodes(&mut component);
        self.register_health(&mut component);
        requests.register(&mut component, &WATCHED_KINDS);
        component.add_loop_ages(watchdog);
        page.add_process();
    }

    fn register_pools(&self, component: &mut Component<'_>) {
        let addresses = Definition::new("pool_addresses", "addresses", "Addresses of a pool");
        let labels = addresses.labels(&[POOL, FAMILY, Label::Only("state", &ADDRESS_STATES)]);
        component.add(&labels, self.pool_addresses.clone());
        let blocks = Definition::new(
            "pool_blocks",
            "blocks",
            "Blocks of a pool. The state `free` includes blocks that the operator has not created yet",
        );
        component.add(&blocks.labels(&[POOL, Label::Only("state", &BLOCK_STATES)]), self.pool_blocks.clone());
        let help = "Free blocks that exist, so that nodes can claim them now";
        component.add(&Definition::new("pool_free_blocks", "blocks", help).labels(&[POOL]), self.free_blocks.clone());
        let help = "How many free blocks the operator wants to exist. 0 while the pool drains";
        component.add(
            &Definition::new("pool_free_blocks_target", "blocks", help).labels(&[POOL]),
            self.free_blocks_target.clone(),
        );
        let condition = Definition::new("pool_condition", "", "1 if the pool's condition is true");
        component
            .add(&condition.labels(&[POOL, Label::Only("state", &CONDITION_STATES)]), self.pool_conditions.clone());
        let help = "Assigned addresses whose pod does not exist or does not use the address";
        component.add(
            &Definition::new("held_not_used_addresses", "addresses", help).labels(&[POOL, FAMILY]),
            self.held_not_used.clone(),
        );
        let help = "Addresses that pods use without an assignment";
        component.add(
            &Definition::new("used_not_held_addresses", "addresses", help).labels(&[POOL, FAMILY]),
            self.used_not_held.clone(),
        );
        let help =
            "Time of the last comparison of all assignments with all pods. 0 means that there was no comparison yet";
        component.add(
            &Definition::new("pod_comparison_timestamp_seconds", "seconds since 1970", help),
            self.pod_comparison_timestamp_seconds.clone(),
        );
    }

    fn register_blocks(&self, component: &mut Component<'_>) {
        let mut counter = |name, unit, help, counter: &Counter| {
            component.add(&Definition::new(name, unit, help), counter.clone());
        };
        counter("blocks_carved", "blocks", "Blocks that the operator created", &self.blocks_carved);
        let help = "Free blocks that the operator deleted because no node needed them";
        counter("surplus_blocks_deleted", "blocks", help, &self.surplus_blocks_deleted);
        let help = "Blocks that the operator could not write; it tries each of them again later";
        counter("block_failures", "blocks", help, &self.block_failures);
        counter("status_writes", "writes", "Pool statuses that the operator wrote", &self.status_writes);
        let help = "Blocks that the operator released because their node was deleted";
        counter("blocks_released", "blocks", help, &self.blocks_released);
        let help = "Assignments that the operator deleted because their node was deleted";
        counter("assignments_deleted", "assignments", help, &self.assignments_deleted);
    }

    fn register_nodes(&self, component: &mut Component<'_>) {
        let mut gauge = |name, unit, help, gauge: &Gauge| {
            component.add(&Definition::new(name, unit, help), gauge.clone());
        };
        let help =
            "Assignments whose node does not own the block, or with an IPv4 or IPv6 address outside of the block";
        gauge("void_assignments", "assignments", help, &self.void_assignments);
        gauge("nodes", "nodes", "Nodes that run Linux, so that each needs an agent", &self.nodes);
        let help = "Deleted nodes that still own a block or an assignment";
        gauge("deleted_nodes", "nodes", help, &self.deleted_nodes);
        let help = "Deleted nodes whose blocks are held, because many Nodes were deleted together";
        gauge("held_nodes", "nodes", help, &self.held_nodes);
        let help =
            "Nodes that may claim no block and create no assignment, because ConfigMap bobbin-denied-nodes lists them";
        gauge("denied_nodes", "nodes", help, &self.denied_nodes);
        gauge("is_leader", "", "1 if this operator is the leader", &self.is_leader);
    }

    fn register_health(&self, component: &mut Component<'_>) {
        let unreadable =
            Definition::new("unreadable_objects", "objects", "Objects that can't be decoded and count as in use");
        component.add(&unreadable.labels(&[Label::Only("kind", &WATCHED_KINDS)]), self.unreadable_objects.clone());
        let passes = Definition::new(
            "reconcile_passes",
            "passes",
            "Reconcile passes over pools. A pass that read outdated objects runs again soon",
        );
        component.add(&passes.labels(&[Label::Only("result", &PassResult::NAMES)]), self.passes.clone());
        let help = "Seconds since a watch began to fail; 0 if no watch is failing. If several watches are failing, the longest time counts";
        component.add(&Definition::new("watch_failing_seconds", "seconds", help), self.watch_failing_seconds.clone());
        let help = "Seconds for which all reconcile passes of a pool have failed, or for which one overdue pass has run. If several pools have this problem, the longest time counts";
        component.add(
            &Definition::new("reconcile_failing_seconds", "seconds", help),
            self.reconcile_failing_seconds.clone(),
        );
    }
}
