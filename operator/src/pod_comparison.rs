//! Compares assignments with live pods. Exports how many addresses have an assignment but no pod, and how many addresses
//! pods use without an assignment. The comparison releases nothing.

mod comparison;
mod pools;
mod report;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Lenient, PartialPod, ReadError, backoff};
use bobbin_observability::Heartbeat;
use kube::Resource;
use tokio::time::Instant;

use crate::cache::address_of;
use crate::cache::objects::PartialAssignment;
use crate::context::{Context, LOOP_DEADLINE};
use crate::live_reads::for_each;
use comparison::{Comparison, Difference, LivePod, PodId};
use pools::Pools;
use report::Report;

/// Selects the pods that may use addresses of pools. Leaves out pods on the host network, because they use the node's addresses.
/// Leaves out pods whose containers have all ended, because other pods can get their addresses.
const LIVE_PODS: &str = "spec.hostNetwork=false,status.phase!=Succeeded,status.phase!=Failed";

/// Compares assignments and pods once per `interval` while this operator leads. Never returns.
pub(crate) async fn run(context: Arc<Context>, interval: Duration) {
    let mut report = Report::new(context.metrics.clone());
    let beat = context.watchdog.register("pod comparison", LOOP_DEADLINE);
    loop {
        beat.beat();
        if !context.is_active() {
            report.reset();
            context.role_change().await;
            continue;
        }
        match compare(&context, &beat).await {
            Ok((differences, pools)) => report.update(differences, &pools),
            Err(error) => tracing::warn!(
                %error,
                "reading the assignments and pods failed, so the operator does not update the metrics about held and used addresses"
            ),
        }
        let next = Instant::now() + backoff::jittered(interval);
        while context.is_active() && Instant::now() < next {
            beat.beat();
            let _ = tokio::time::timeout_at(next, context.role_change()).await;
        }
    }
}

/// Reads all assignments, then all pods, and compares them. An address that is assigned between the two reads looks
/// like a difference. So the report counts only differences that two successive comparisons find. Each object counts as
/// progress for the watchdog, because reading many pages takes long.
async fn compare(context: &Context, beat: &Heartbeat) -> Result<(HashSet<Difference>, Pools), ReadError> {
    let mut pools = Pools::default();
    for pool in context.cache.with(|index| index.pools()) {
        pools.add(pool.name(), pool.readable());
    }
    let mut comparison = Comparison::new(&pools);
    for_each::<PartialAssignment>(&context.clients, "", |assignment| {
        beat.beat();
        add_assignment(&mut comparison, assignment);
    })
    .await?;
    for_each::<PartialPod>(&context.clients, LIVE_PODS, |pod| {
        beat.beat();
        add_pod(&mut comparison, &pod);
    })
    .await?;
    Ok((comparison.differences(), pools))
}

fn add_assignment(comparison: &mut Comparison<'_>, assignment: Lenient<PartialAssignment>) {
    match assignment.into_result() {
        Ok(PartialAssignment { spec, .. }) => {
            let addresses = [&spec.ipv4, &spec.ipv6].into_iter().flatten().filter_map(|text| text.parse().ok());
            let pod = spec.pod_namespace.zip(spec.pod_name).map(|(namespace, name)| PodId {
                namespace: namespace.into(),
                name: name.into(),
                uid: spec.pod_uid.unwrap_or_default().into(),
            });
            comparison.add_assignment(&spec.pool_name, addresses, pod);
        }
        Err(unreadable) => {
            if let Some(address) = address_of(unreadable.name()) {
                comparison.add_unreadable_assignment(address);
            }
        }
    }
}

fn add_pod(comparison: &mut Comparison<'_>, pod: &Lenient<PartialPod>) {
    let metadata = pod.meta();
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let id = PodId { namespace: text(&metadata.namespace), name: text(&metadata.name), uid: text(&metadata.uid) };
    match pod.readable() {
        Some(pod) => {
            let static_pod_uid = pod.static_pod_uid().map(Into::into);
            comparison.add_pod(&LivePod { id, static_pod_uid, addresses: pod.addresses() });
        }
        None => comparison.add_unreadable_pod(&id.namespace, &id.name),
    }
}
