//! Creates the agent's metrics, and gives each its name, labels, unit and meaning.

use bobbin_api_client::RequestMetrics;
use bobbin_datapath::DriftSubject;
use bobbin_messages::event::agent as event;
use bobbin_observability::Metrics as Page;
use bobbin_observability::Watchdog;
use bobbin_observability::metrics::{Component, Definition, Label, Listed};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::calls::{CallMetrics, VERBS};
use super::definitions::{COUNTERS, GAUGES, STAGES};
use super::gauges::{ADDRESS_STATES, FAMILIES};
use super::{
    AttemptOutcome, ClaimMetrics, KindLabel, Metrics, RESULTS, ReasonLabel, ResultLabel, ResyncRepair, SubjectLabel,
    latency_histogram,
};
use crate::state::BlockState;

/// The kinds of objects that the agent watches.
const WATCHED_KINDS: [&str; 6] = ["AddressBlock", "AddressPool", "IPAssignment", "Namespace", "Node", "Pod"];
/// The reasons of the events about the CNI plugin and the CNI configuration.
pub(super) const INSTALLATION_PROBLEMS: [&str; 4] = [
    event::CHAINED_PLUGIN_UNKNOWN.reason,
    event::CNI_CONFIG_SHADOWED.reason,
    event::CNI_VERSION_LOWERED.reason,
    event::INSTALL_FAILED.reason,
];
const POOL: Label = Label::Described("pool", "the name of the pool");
const VERB: Label = Label::Only("verb", &VERBS);
const RESULT: Label = Label::Only("result", &RESULTS);

/// The parts of the agent that create and update their own metrics.
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
    let [address_wait, wiring_duration, confirmation_wait] =
        STAGES.map(|definition| component.add(&definition, latency_histogram()));
    let [
        early_reuses,
        unproven_adds,
        duplicate_addresses,
        gc_attachments_removed,
        stale_attachments_removed,
        breaker_trips,
        installation_repairs,
    ] = COUNTERS.map(|definition| component.add(&definition, Counter::default()));
    let (resyncs, resync_timestamp, resync_repairs) = register_resync(component);
    let (datapath_passes, datapath_repairs) = register_datapath(component);
    let [
        stale_check_timestamp,
        broken_attachments,
        attachments,
        excluded_addresses,
        waiting_adds,
        pending_assignments,
        unconfirmed_assignments,
    ] = GAUGES.map(|definition| component.add(&definition, Gauge::default()));
    let help = "Age of the oldest attachment whose assignment the API server has not confirmed; 0 if there is none";
    let oldest = Definition::new("oldest_unconfirmed_assignment_age_seconds", "seconds", help);
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
        installation_repairs,
        installation_problems: register_installation(component),
        stale_check_timestamp,
        broken_attachments,
        attachments,
        excluded_addresses,
        waiting_adds,
        pending_assignments,
        unconfirmed_assignments,
        oldest_unconfirmed_assignment: component.add(&oldest, Gauge::default()),
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
    let help = "Attempts to claim one block. With the result `lost_race`, another write to the block came first. After the result `unknown`, the agent reads the block until it knows the owner";
    component.add(
        &Definition::new("claim_attempts", "attempts", help).labels(&[Label::Only("result", &AttemptOutcome::NAMES)]),
        claims.attempts.clone(),
    );
    let help = "Time from the start of a claim until its block was in service, or until the claim failed";
    component.add(&Definition::new("claim_duration_seconds", "seconds", help), claims.duration.clone());
}

fn register_resync(
    component: &mut Component<'_>,
) -> (Family<ResultLabel, Counter>, Gauge, Family<ReasonLabel, Counter>) {
    let (resyncs, repairs) = (Family::<ResultLabel, Counter>::default(), Family::<ReasonLabel, Counter>::default());
    for result in RESULTS {
        drop(resyncs.get_or_create(&ResultLabel { result }));
    }
    for reason in ResyncRepair::NAMES {
        drop(repairs.get_or_create(&ReasonLabel { reason }));
    }
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
    for result in RESULTS {
        drop(passes.get_or_create(&ResultLabel { result }));
    }
    for subject in DriftSubject::NAMES {
        drop(repairs.get_or_create(&SubjectLabel { subject }));
    }
    let help = "Reconcile passes that compared the node's network with the desired state";
    component.add(&Definition::new("datapath_passes", "passes", help).labels(&[RESULT]), passes.clone());
    let help = "Changes to the node's network that other programs made and the agent reverted, by what they belong to";
    component.add(
        &Definition::new("datapath_repairs", "changes", help).labels(&[Label::Only("subject", &DriftSubject::NAMES)]),
        repairs.clone(),
    );
    (passes, repairs)
}

fn register_installation(component: &mut Component<'_>) -> Family<ReasonLabel, Gauge> {
    let problems = Family::<ReasonLabel, Gauge>::default();
    for reason in INSTALLATION_PROBLEMS {
        drop(problems.get_or_create(&ReasonLabel { reason }));
    }
    let help = "Problems of the CNI plugin and the CNI configuration on the node, by the reason of the event that reports them";
    let definition = Definition::new("installation_problems", "problems", help);
    component.add(&definition.labels(&[Label::Only("reason", &INSTALLATION_PROBLEMS)]), problems)
}

fn register_unreadable(component: &mut Component<'_>) -> Family<KindLabel, Gauge> {
    let unreadable = Family::<KindLabel, Gauge>::default();
    for kind in WATCHED_KINDS {
        drop(unreadable.get_or_create(&KindLabel { kind: kind.to_owned() }));
    }
    let help = "Objects that the agent can't decode. The addresses of these objects count as in use";
    component.add(
        &Definition::new("unreadable_objects", "objects", help).labels(&[Label::Only("kind", &WATCHED_KINDS)]),
        unreadable,
    )
}
