//! Creates the agent's metrics, and gives each its name, labels, unit and meaning.

use bobbin_api_client::RequestMetrics;
use bobbin_datapath::DriftSubject;
use bobbin_observability::Metrics as Page;
use bobbin_observability::Watchdog;
use bobbin_observability::metrics::{Component, Definition, Label, Listed};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::calls::{CallMetrics, VERBS};
use super::gauges::{ADDRESS_STATES, FAMILIES};
use super::{
    AttemptOutcome, ClaimMetrics, KindLabel, Metrics, RESULTS, ReasonLabel, ResultLabel, ResyncRepair, SubjectLabel,
    latency_histogram,
};
use crate::state::BlockState;

/// The kinds of objects that the agent watches.
const WATCHED_KINDS: [&str; 6] = ["AddressBlock", "AddressPool", "IPAssignment", "Namespace", "Node", "Pod"];
/// The label of a pool.
const POOL: Label = Label::Described("pool", "the name of the pool");
/// The label of a CNI verb.
const VERB: Label = Label::Only("verb", &VERBS);
/// The label of a result.
const RESULT: Label = Label::Only("result", &RESULTS);

/// The parts of the agent that count for themselves.
pub(crate) struct Parts<'a> {
    pub requests: &'a RequestMetrics,
    pub claims: &'a ClaimMetrics,
    pub refused_pools: Gauge,
    pub watchdog: Watchdog,
}

/// Lists the agent's metrics for the documents.
pub fn list() -> Vec<Listed> {
    let mut page = Page::default();
    let parts = Parts {
        requests: &RequestMetrics::default(),
        claims: &ClaimMetrics::default(),
        refused_pools: Gauge::default(),
        watchdog: Watchdog::default(),
    };
    Metrics::register(&mut page, parts);
    page.listed().to_vec()
}

impl Metrics {
    /// Creates the agent's metrics and registers them, together with the metrics of the agent's parts.
    pub(crate) fn register(page: &mut Page, parts: Parts<'_>) -> Metrics {
        let mut component = page.component("agent");
        component.add_build_info(env!("CARGO_PKG_VERSION"));
        let metrics = register_own(&mut component);
        register_claims(&mut component, parts.claims);
        let help = "Pools with blocks that this node refuses to claim, because the blocks contain addresses that the node itself uses";
        component.add(&Definition::new("refused_pools", "pools", help), parts.refused_pools);
        parts.requests.register(&mut component, &WATCHED_KINDS);
        component.add_loop_ages(parts.watchdog);
        page.add_process();
        metrics
    }
}

fn register_own(component: &mut Component<'_>) -> Metrics {
    let calls = register_calls(component);
    let mut histogram = |name, help| component.add(&Definition::new(name, "seconds", help), latency_histogram());
    let address_wait = histogram(
        "address_wait_seconds",
        "Time in which an ADD allocated an address or gave up, including its wait for a free address",
    );
    let wiring_duration = histogram("wiring_duration_seconds", "Time that the kernel took to wire a pod");
    let confirmation_wait = histogram(
        "confirmation_wait_seconds",
        "Time that an ADD waited for the confirmation of its assignment, not counting the wiring",
    );
    let mut counter = |name, unit, help| component.add(&Definition::new(name, unit, help), Counter::default());
    let early_reuses = counter(
        "early_reuses",
        "addresses",
        "Addresses assigned before their cool-down ended, because the pool had no other free address",
    );
    let unproven_adds = counter(
        "unproven_adds",
        "calls",
        "ADDs that waited for the confirmation of their assignment, because the API server had not recently confirmed the node's block",
    );
    let duplicate_addresses = counter(
        "duplicate_addresses",
        "addresses",
        "Addresses that this node allocated although another attachment's assignment names them",
    );
    let gc_attachments_removed = counter(
        "gc_attachments_removed",
        "attachments",
        "Attachments that GC removed because the runtime did not list them",
    );
    let stale_attachments_removed = counter(
        "stale_attachments_removed",
        "attachments",
        "Attachments removed because their pod or network namespace was gone and the runtime had not called DEL",
    );
    let breaker_trips = counter(
        "breaker_trips",
        "passes",
        "Stale checks, GC calls and resyncs that removed nothing because they would have removed too much",
    );
    let (resyncs, resync_timestamp, resync_repairs) = register_resync(component);
    let (datapath_passes, datapath_repairs) = register_datapath(component);
    let mut gauge = |name, unit, help| component.add(&Definition::new(name, unit, help), Gauge::default());
    Metrics {
        calls,
        address_wait,
        wiring_duration,
        confirmation_wait,
        early_reuses,
        unproven_adds,
        duplicate_addresses,
        gc_attachments_removed,
        stale_attachments_removed,
        breaker_trips,
        stale_check_timestamp: gauge(
            "stale_check_timestamp_seconds",
            "seconds since 1970",
            "When the last check for stale attachments ended. 0 means that there was no check yet",
        ),
        broken_attachments: gauge(
            "broken_attachments",
            "attachments",
            "Attachments that have lost their interface, so that their pods have no network",
        ),
        attachments: gauge("attachments", "attachments", "Attachments on the node"),
        excluded_addresses: gauge(
            "excluded_addresses",
            "addresses",
            "Addresses that this node does not allocate, because each has the assignment of another attachment",
        ),
        waiting_adds: gauge("waiting_adds", "calls", "ADDs that wait for an address now"),
        pending_assignments: gauge(
            "pending_assignments",
            "assignments",
            "Assignments that wait to be created or deleted",
        ),
        unconfirmed_assignments: gauge(
            "unconfirmed_assignments",
            "assignments",
            "Attachments whose assignment the API server has not confirmed",
        ),
        resyncs,
        resync_timestamp,
        resync_repairs,
        datapath_passes,
        datapath_repairs,
        addresses: component.add(
            &Definition::new("addresses", "addresses", "Addresses of the node's blocks that are in service").labels(&[
                POOL,
                Label::Only("family", &FAMILIES),
                Label::Only("state", &ADDRESS_STATES),
            ]),
            Family::default(),
        ),
        blocks: component.add(
            &Definition::new("blocks", "blocks", "The node's blocks")
                .labels(&[POOL, Label::Only("state", &BlockState::NAMES)]),
            Family::default(),
        ),
        unreadable_objects: register_unreadable(component),
        oldest_unconfirmed_assignment: component.add(
            &Definition::new(
                "oldest_unconfirmed_assignment_age_seconds",
                "seconds",
                "Age of the oldest attachment whose assignment the API server has not confirmed; 0 if there is none",
            ),
            Gauge::default(),
        ),
    }
}

fn register_calls(component: &mut Component<'_>) -> CallMetrics {
    let calls = CallMetrics::new();
    component.add(
        &Definition::new("cni_calls", "calls", "Answered CNI calls").labels(&[
            VERB,
            Label::Described("code", "the CNI error code, or 0 for a success"),
            Label::Described("pool", "the name of the pool, or empty if the call has no pool"),
        ]),
        calls.calls.clone(),
    );
    let definition = Definition::new("cni_call_duration_seconds", "seconds", "Time from a CNI call to its answer");
    component.add(&definition.labels(&[VERB, RESULT]), calls.durations.clone());
    calls
}

fn register_claims(component: &mut Component<'_>, claims: &ClaimMetrics) {
    let help =
        "Attempts to claim one block. After the result `unknown`, the agent reads the block until it knows the owner";
    component.add(
        &Definition::new("claim_attempts", "attempts", help).labels(&[Label::Only("result", &AttemptOutcome::NAMES)]),
        claims.attempts.clone(),
    );
    let help = "Claim attempts that failed because another node already had the block, or because the pool's status was out of date";
    component.add(&Definition::new("claim_conflicts", "attempts", help), claims.conflicts.clone());
    let help = "Time from the begin of a claim until its block was in service, or until the claim failed";
    component.add(&Definition::new("claim_duration_seconds", "seconds", help), claims.duration.clone());
}

fn register_resync(
    component: &mut Component<'_>,
) -> (Family<ResultLabel, Counter>, Gauge, Family<ReasonLabel, Counter>) {
    let (resyncs, repairs) = (Family::<ResultLabel, Counter>::default(), Family::<ReasonLabel, Counter>::default());
    RESULTS.iter().for_each(|result| drop(resyncs.get_or_create(&ResultLabel { result })));
    ResyncRepair::NAMES.iter().for_each(|reason| drop(repairs.get_or_create(&ReasonLabel { reason })));
    let help = "Comparisons of the agent's state with the API server";
    component.add(&Definition::new("resyncs", "passes", help).labels(&[RESULT]), resyncs.clone());
    let help = "When the last successful resync ended. 0 means that there was none yet";
    let timestamp =
        component.add(&Definition::new("resync_timestamp_seconds", "seconds since 1970", help), Gauge::default());
    let help = "Differences between the agent's state and the API server that resyncs began to repair";
    component.add(
        &Definition::new("resync_repairs", "repairs", help).labels(&[Label::Only("reason", &ResyncRepair::NAMES)]),
        repairs.clone(),
    );
    (resyncs, timestamp, repairs)
}

fn register_datapath(component: &mut Component<'_>) -> (Family<ResultLabel, Counter>, Family<SubjectLabel, Counter>) {
    let (passes, repairs) = (Family::<ResultLabel, Counter>::default(), Family::<SubjectLabel, Counter>::default());
    RESULTS.iter().for_each(|result| drop(passes.get_or_create(&ResultLabel { result })));
    DriftSubject::NAMES.iter().for_each(|subject| drop(repairs.get_or_create(&SubjectLabel { subject })));
    let help = "Reconcile passes that compared the node's network with the desired state";
    component.add(&Definition::new("datapath_passes", "passes", help).labels(&[RESULT]), passes.clone());
    let help = "Changes to the node's network that other programs made and the agent reverted, by what they belong to";
    component.add(
        &Definition::new("datapath_repairs", "changes", help).labels(&[Label::Only("subject", &DriftSubject::NAMES)]),
        repairs.clone(),
    );
    (passes, repairs)
}

fn register_unreadable(component: &mut Component<'_>) -> Family<KindLabel, Gauge> {
    let unreadable = Family::<KindLabel, Gauge>::default();
    WATCHED_KINDS.iter().for_each(|kind| drop(unreadable.get_or_create(&KindLabel { kind: (*kind).to_owned() })));
    let help = "Objects that the agent can't decode. The addresses of these objects count as in use";
    component.add(
        &Definition::new("unreadable_objects", "objects", help).labels(&[Label::Only("kind", &WATCHED_KINDS)]),
        unreadable,
    )
}
