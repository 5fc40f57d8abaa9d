//! Deletes void assignments. Each assignment names a block. The assignment is void if its node does not own this block,
//! or if its address is not in this block.
//!
//! - A void assignment is forged if its block is older than the assignment and lacks the address, and no pod has the
//!   address. The operator deletes a forged assignment at once.
//! - Any other void assignment may belong to a running pod. Only the node's agent can see the container, so the agent
//!   gets time to decide first. The operator deletes the assignment only if two checks find the pod gone.

mod candidates;
mod evidence;
mod live;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, is_object_name};
use bobbin_ipam::void_assignment::{NodeFacts, PodEvidence, Verdict, verdict};
use futures::StreamExt;
use kube::Api;

use crate::cache::objects::PartialAssignment;
use crate::context::{Context, LOOP_DEADLINE, MAX_CONCURRENT_WRITES};
use crate::deleted_nodes::{DeleteOutcome, delete_assignment};
use candidates::Candidates;
use evidence::facts;
use live::Reads;

/// The operator checks this many assignments before the loop reports progress to the watchdog.
const CHECKS_PER_BATCH: usize = 64;
/// After this time a pass begins no further batch. The next pass checks the remaining assignments.
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

/// Checks a batch of the candidates that are due. Deletes an assignment if it is forged, or if two checks found its pod
/// gone. Returns false if no candidate was due.
async fn check_batch(context: &Context, candidates: &mut Candidates) -> bool {
    let due = candidates.take_due(CHECKS_PER_BATCH, Instant::now());
    if due.is_empty() {
        return false;
    }
    let batch = live::read_all(&context.clients, due).await;
    if !batch.failed.is_empty() {
        tracing::debug!(
            count = batch.failed.len(),
            "failed to check void assignments; the assignments stay until the next check"
        );
    }
    batch.failed.iter().for_each(|name| candidates.retry(name, Instant::now()));
    let mut deletions = Vec::new();
    for reads in batch.read {
        deletions.extend(decide(context, candidates, &reads));
    }
    let api: Api<Lenient<PartialAssignment>> = Api::all(context.clients.requests.clone());
    let deletions = deletions.into_iter().map(|(name, uid)| delete_assignment(&api, name, uid));
    let deletions: Vec<DeleteOutcome> =
        futures::stream::iter(deletions).buffer_unordered(MAX_CONCURRENT_WRITES).collect().await;
    let count = deletions.into_iter().filter(|deletion| deletion.is_gone()).count();
    if count > 0 {
        tracing::warn!(count, "the operator deleted void assignments; earlier lines of the log name each of them");
    }
    true
}

/// Returns the name and the UID of the assignment if the operator should delete it now.
fn decide(context: &Context, candidates: &mut Candidates, reads: &Reads) -> Option<(String, String)> {
    let Reads { suspect, assignment, block, node_is_gone, pod } = reads;
    let (name, spec) = (&suspect.name, &assignment.spec);
    let addresses = suspect.range;
    let (node, block_name) = (&spec.node_name, &spec.block_name);
    // An assignment counts as in use if its pool can't be decoded.
    if context.cache.with(|index| index.is_unreadable(&spec.pool_name)) {
        return None;
    }
    let of_node = NodeFacts { is_denied: context.denied.contains(node), is_gone: *node_is_gone };
    let verdict = verdict(&facts(assignment), block, *pod, of_node);
    let now = Instant::now();
    candidates.note_pod_missing(name, verdict != Verdict::NotVoid && pod.lacks_address());
    let uid = assignment.metadata.uid.clone()?;
    match verdict {
        Verdict::VoidNodeGone if !is_object_name(node) => {
            tracing::warn!(
                assignment = name,
                node,
                "no Node can have the name of the node in a void IPAssignment, so the operator keeps the IPAssignment. If no pod uses its address, run kubectl delete ipassignment with its name"
            );
            None
        }
        // The module `deleted_nodes` deletes the assignments of a deleted node after the grace period.
        Verdict::NotVoid | Verdict::VoidNodeGone => None,
        Verdict::Forged => {
            candidates.note_forged(name, now);
            tracing::warn!(
                assignment = name,
                %addresses,
                node,
                block = block_name,
                pod = pod_of(assignment),
                "the operator is deleting a forged IPAssignment: its block never had the addresses, and no pod has them"
            );
            Some((name.clone(), uid))
        }
        Verdict::VoidInUse => {
            candidates.note_pod_alive(name);
            tracing::warn!(
                assignment = name,
                %addresses,
                node,
                block = block_name,
                pod = pod_of(assignment),
                "{}", remedy(*pod)
            );
            None
        }
        Verdict::VoidPodGone if candidates.note_pod_gone(name, &uid, now) => {
            tracing::warn!(
                assignment = name,
                %addresses,
                node,
                block = block_name,
                "the operator is deleting a void IPAssignment: its pod is gone, and its node does not own a block with the addresses"
            );
            Some((name.clone(), uid))
        }
        Verdict::VoidPodGone => {
            tracing::debug!(
                assignment = name,
                %addresses,
                node,
                block = block_name,
                "the operator found a void IPAssignment of a deleted pod. The operator deletes the IPAssignment if a second check after 15 minutes has the same result"
            );
            None
        }
    }
}

/// The log message that says what to do about a void assignment that the operator does not delete.
fn remedy(pod: PodEvidence) -> &'static str {
    match pod {
        PodEvidence::NotNamed => {
            "a void IPAssignment names no pod, so the operator can't see whether its addresses are in use. If no pod has them, run kubectl delete ipassignment with its name"
        }
        PodEvidence::Unreadable => {
            "the pod of a void IPAssignment can't be decoded, so the operator keeps the IPAssignment. Correct or delete the pod"
        }
        PodEvidence::NoMirrorPod => {
            "the static pod of a void IPAssignment has no mirror pod, so the operator can't see whether the pod runs. If it does not run on its node, run kubectl delete ipassignment with the IPAssignment's name"
        }
        _ => {
            "a running pod may use addresses outside its node's blocks. Delete the pod, so that its replacement gets other addresses"
        }
    }
}

/// The namespace and the name of an assignment's pod.
fn pod_of(assignment: &PartialAssignment) -> String {
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "(none)".to_owned());
    format!("{}/{}", or_none(&assignment.spec.pod_namespace), or_none(&assignment.spec.pod_name))
}
