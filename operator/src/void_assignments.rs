//! Deletes void assignments: the assignment's node does not own the block, and the assignment's pod no longer exists.
//!
//! The node's agent can see the container, so the operator gives the agent time to decide first. The operator deletes an
//! assignment only if two checks find the assignment void.

mod candidates;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, ReadError, read};
use bobbin_crds::AddressBlock;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::PartialObjectMeta;

use crate::cache::OrphanedAssignment;
use crate::cache::objects::PartialAssignment;
use crate::context::Context;
use crate::deleted_nodes::delete_assignment;
use crate::live_reads::{READ_TIMEOUT, node_is_gone};
use candidates::Candidates;

/// How often the operator looks for orphaned assignments.
const PASS_INTERVAL: Duration = Duration::from_secs(30);
/// The maximum number of assignments that one pass checks by live reads.
const MAX_CHECKS_PER_PASS: usize = 20;

/// Finds and deletes void assignments. Never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let mut candidates = Candidates::default();
    loop {
        tokio::time::sleep(bobbin_api_client::backoff::jittered(PASS_INTERVAL)).await;
        if !context.watches.synced() {
            continue;
        }
        let orphans = context.cache.with(|index| {
            index.tidy();
            index.orphaned_assignments()
        });
        let count = candidates.observe(orphans, Instant::now());
        context.metrics.void_assignments.set(i64::try_from(count).unwrap_or(i64::MAX));
        if !context.is_leader() {
            continue;
        }
        for orphan in candidates.take_due(MAX_CHECKS_PER_PASS, Instant::now()) {
            if let Err(error) = check(&context, &mut candidates, &orphan).await {
                tracing::debug!(assignment = orphan.name, %error, "failed to check an orphaned assignment; the operator keeps the assignment");
            }
        }
    }
}

/// Reads the assignment, its block, its Node and its pod. Deletes the assignment if it is void and an earlier check also
/// found the pod gone.
async fn check(
    context: &Context,
    candidates: &mut Candidates,
    candidate: &OrphanedAssignment,
) -> Result<(), ReadError> {
    let assignments: Api<Lenient<PartialAssignment>> = Api::all(context.clients.requests.clone());
    let assignment = match read(READ_TIMEOUT, assignments.get(&candidate.name)).await {
        Err(ReadError::NotFound) => return Ok(()),
        assignment => assignment?,
    };
    // An assignment counts as in use if the assignment, its block or its pool can't be decoded.
    let Lenient::Readable(assignment) = assignment else { return Ok(()) };
    if context.cache.with(|index| index.is_unreadable(&assignment.spec.pool_name)) {
        return Ok(());
    }
    let blocks: Api<Lenient<AddressBlock>> = Api::all(context.clients.requests.clone());
    let owner = match read(READ_TIMEOUT, blocks.get(&assignment.spec.block_name)).await {
        Err(ReadError::NotFound) => None,
        block => {
            let Lenient::Readable(block) = block? else { return Ok(()) };
            block.spec.node_name.filter(|node| !node.is_empty())
        }
    };
    let (node, block) = (&assignment.spec.node_name, &assignment.spec.block_name);
    if owner.as_deref() == Some(node) {
        return Ok(());
    }
    // The module `deleted_nodes` deletes the assignments of a deleted node after the grace period.
    if node_is_gone(&context.clients, node).await? {
        return Ok(());
    }
    let (address, owner) = (&candidate.name, owner.as_deref().unwrap_or("(none)"));
    if !pod_is_gone(context, &assignment).await? {
        candidates.note_pod_alive(candidate);
        let pod = pod_of(&assignment);
        tracing::warn!(
            address,
            node,
            block,
            owner,
            pod,
            "a running pod uses an address of a block that the pod's node does not own: delete the pod, so that it gets another address"
        );
        return Ok(());
    }
    let Some(uid) = assignment.metadata.uid else { return Ok(()) };
    if !candidates.note_pod_gone(candidate, &uid, Instant::now()) {
        tracing::info!(
            address,
            node,
            block,
            owner,
            "found a void assignment of a deleted pod; the operator deletes it if a second check in 15 minutes finds it void again"
        );
        return Ok(());
    }
    if delete_assignment(&assignments, candidate.name.clone(), uid).await {
        tracing::warn!(
            address,
            node,
            block,
            owner,
            "deleted a void assignment: its pod is gone and its node does not own the block"
        );
    }
    Ok(())
}

/// The namespace and the name of the pod that an assignment names.
fn pod_of(assignment: &PartialAssignment) -> String {
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "(none)".to_owned());
    format!("{}/{}", or_none(&assignment.spec.pod_namespace), or_none(&assignment.spec.pod_name))
}

/// Whether the pod of an assignment no longer exists. Returns false if the assignment names no pod, because then nothing
/// proves that the pod is gone.
async fn pod_is_gone(context: &Context, assignment: &PartialAssignment) -> Result<bool, ReadError> {
    let spec = &assignment.spec;
    let (Some(namespace), Some(name), Some(uid)) = (&spec.pod_namespace, &spec.pod_name, &spec.pod_uid) else {
        return Ok(false);
    };
    let pods: Api<Lenient<PartialObjectMeta<Pod>>> = Api::namespaced(context.clients.requests.clone(), namespace);
    match read(READ_TIMEOUT, pods.get(name)).await {
        Err(ReadError::NotFound) => Ok(true),
        Ok(Lenient::Unreadable(_)) => Ok(false),
        // A different UID does not prove that a mirror pod is gone, because the container runtime knows a mirror pod by
        // another UID.
        Ok(Lenient::Readable(pod)) => Ok(pod.metadata.uid.as_ref() != Some(uid)
            && !pod.metadata.annotations.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))),
        Err(error) => Err(error),
    }
}
