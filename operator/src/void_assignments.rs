//! Deletes void assignments: those whose node does not own the block, and those whose address is not in the block.
//!
//! An assignment is forged if its block is older and lacks the address, and no pod has the address. The operator deletes a forged
//! assignment at once. Any other void assignment may belong to a running pod. The node's agent gets time to decide first, because
//! only the agent can see the container. The operator deletes the assignment only if two checks find the pod gone.

mod candidates;
mod evidence;
mod live;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::Lenient;
use futures::StreamExt;
use kube::Api;

use crate::cache::objects::PartialAssignment;
use crate::context::{Context, LOOP_DEADLINE, MAX_CONCURRENT_WRITES};
use crate::deleted_nodes::delete_assignment;
use candidates::Candidates;
use evidence::{Verdict, verdict};
use live::Reads;

/// How many assignments are checked by live reads before the loop reports progress.
const CHECKS_PER_BATCH: usize = 64;
/// After this time a pass begins no further batch. The next pass checks the rest.
const MAX_PASS_TIME: Duration = Duration::from_secs(30);

/// Finds and deletes void assignments. Never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let mut candidates = Candidates::new(context.times);
    let beat = context.watchdog.register("void assignments", LOOP_DEADLINE);
    loop {
        tokio::time::sleep(bobbin_api_client::backoff::jittered(context.times.pass_interval())).await;
        beat.beat();
        if !context.watches.synced() {
            continue;
        }
        let suspects = context.cache.with(|index| {
            index.tidy();
            index.suspect_assignments()
        });
        candidates.observe(suspects, Instant::now());
        context.cache.set_void(candidates.confirmed());
        context.metrics.void_assignments.set(i64::try_from(candidates.confirmed().count()).unwrap_or(i64::MAX));
        if context.is_leader() {
            for node in context.denied.take_lifted() {
                candidates.forget_forgeries(&node);
            }
            let start = Instant::now();
            while start.elapsed() < MAX_PASS_TIME && check_batch(&context, &mut candidates).await {
                beat.beat();
            }
        }
        context.denied.set_void_counts(candidates.without_pod(Instant::now()));
    }
}

/// Checks a batch of the candidates that are due, and deletes those that may go. Returns false if no candidate was due.
async fn check_batch(context: &Context, candidates: &mut Candidates) -> bool {
    let due = candidates.take_due(CHECKS_PER_BATCH, Instant::now());
    if due.is_empty() {
        return false;
    }
    let batch = live::read_all(&context.clients, due).await;
    if !batch.failed.is_empty() {
        tracing::debug!(count = batch.failed.len(), "failed to check void assignments; they stay until the next check");
    }
    batch.failed.iter().for_each(|name| candidates.retry(name, Instant::now()));
    let mut deletions = Vec::new();
    for reads in batch.read {
        deletions.extend(decide(context, candidates, &reads));
    }
    let api: Api<Lenient<PartialAssignment>> = Api::all(context.clients.requests.clone());
    let deletions = deletions.into_iter().map(|(name, uid)| delete_assignment(&api, name, uid));
    let deleted: Vec<bool> = futures::stream::iter(deletions).buffer_unordered(MAX_CONCURRENT_WRITES).collect().await;
    let count = deleted.iter().filter(|deleted| **deleted).count();
    if count > 0 {
        tracing::warn!(count, "deleted void assignments: the log names each");
    }
    true
}

/// Returns name and UID of the assignment if it is to be deleted now.
fn decide(context: &Context, candidates: &mut Candidates, reads: &Reads) -> Option<(String, String)> {
    let Reads { suspect, assignment, block, node_is_gone, pod } = reads;
    let (address, spec) = (&suspect.name, &assignment.spec);
    let (node, block_name) = (&spec.node_name, &spec.block_name);
    // An assignment counts as in use if its pool can't be decoded.
    if context.cache.with(|index| index.is_unreadable(&spec.pool_name)) {
        return None;
    }
    let verdict = verdict(assignment, block, *pod, context.denied.contains(node));
    let now = Instant::now();
    candidates.note_pod_missing(address, verdict != Verdict::NotVoid && pod.lacks_address());
    let uid = assignment.metadata.uid.clone()?;
    match verdict {
        Verdict::NotVoid => None,
        Verdict::Forged => {
            candidates.note_forged(address, now);
            tracing::warn!(
                address,
                node,
                block = block_name,
                pod = pod_of(assignment),
                "deleting a forged assignment: its block never had the address, and no pod has the address"
            );
            Some((address.clone(), uid))
        }
        // The assignments of a deleted node are left to `deleted_nodes`, which deletes them after the grace period.
        Verdict::VoidPodGone | Verdict::VoidInUse if *node_is_gone => None,
        Verdict::VoidInUse => {
            candidates.note_pod_alive(address);
            tracing::warn!(
                address,
                node,
                block = block_name,
                pod = pod_of(assignment),
                "a running pod may use an address outside of its node's blocks: delete the pod, so that it gets another address"
            );
            None
        }
        Verdict::VoidPodGone if candidates.note_pod_gone(address, &uid, now) => {
            tracing::warn!(
                address,
                node,
                block = block_name,
                "deleting a void assignment: its pod is gone and its node does not own the block"
            );
            Some((address.clone(), uid))
        }
        Verdict::VoidPodGone => {
            tracing::debug!(
                address,
                node,
                block = block_name,
                "found a void assignment of a deleted pod; the operator deletes the assignment if a second check in 15 minutes finds the same"
            );
            None
        }
    }
}

/// The namespace and the name of the pod that an assignment names.
fn pod_of(assignment: &PartialAssignment) -> String {
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "(none)".to_owned());
    format!("{}/{}", or_none(&assignment.spec.pod_namespace), or_none(&assignment.spec.pod_name))
}
