//! Releases the assignments and blocks of one deleted node.

use std::collections::BTreeSet;
use std::sync::Arc;

use bobbin_api_client::{Lenient, Outcome, ReadError, Refusal, delete, patch, write};
use bobbin_crds::AddressBlock;
use bobbin_ipam::BlockRange;
use bobbin_observability::Heartbeat;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use crate::cache::objects::PartialAssignment;
use crate::cache::{Holdings, UnreadableObject};
use crate::context::{Context, MAX_CONCURRENT_WRITES, WRITE_TIMEOUT};
use crate::live_reads::{for_each, node_is_gone};

/// Why a deleted node still owns blocks or assignments after an attempt to release them.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReleaseError {
    /// A read from the API server failed.
    #[error("reading from the API server failed: {0}")]
    Read(#[from] ReadError),
    /// The deletion of some assignments failed. The operator releases no block while an assignment of the node is left.
    #[error("the API server did not confirm the deletion of {0} assignments of the node")]
    AssignmentsLeft(usize),
}

/// What the operator may release of a deleted node: its blocks and assignments.
#[derive(Default)]
struct OwnedObjects {
    /// Name and UID of each assignment.
    assignments: Vec<(String, String)>,
    blocks: Vec<AddressBlock>,
    /// The pools of these assignments and blocks.
    pools: BTreeSet<Arc<str>>,
    /// The ranges of unreadable assignments. The operator does not delete these assignments. `None` means that the range is
    /// unknown.
    kept: Vec<Option<BlockRange>>,
}

impl OwnedObjects {
    /// Adds an assignment to the objects to release, if it names this node.
    fn add_assignment(
        &mut self,
        node: &str,
        assignment: Lenient<PartialAssignment>,
        is_unreadable: impl Fn(&str) -> bool,
    ) {
        match assignment {
            Lenient::Readable(assignment)
                if assignment.spec.node_name == node && !is_unreadable(&assignment.spec.pool_name) =>
            {
                self.pools.insert(assignment.spec.pool_name.as_str().into());
                self.assignments.extend(assignment.metadata.name.zip(assignment.metadata.uid));
            }
            Lenient::Readable(_) => {}
            Lenient::Unreadable(assignment) => self.kept.push(UnreadableObject::assignment(assignment.name()).range),
        }
    }

    /// Adds a block to the objects to release, if this node owns it. Skips the block if the block or its pool can't be
    /// decoded, or if an unreadable assignment may have an address of the block.
    fn add_block(&mut self, node: &str, block: Lenient<AddressBlock>, is_unreadable: impl Fn(&str) -> bool) {
        let Lenient::Readable(block) = block else { return };
        if block.spec.node_name.as_deref() != Some(node) {
            return;
        }
        let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok();
        let may_contain = |kept: &Option<BlockRange>| match (kept, range) {
            (Some(kept), Some(range)) => kept.overlaps(&range),
            _ => true,
        };
        if !is_unreadable(&block.spec.pool_name) && !self.kept.iter().any(may_contain) {
            self.pools.insert(block.spec.pool_name.as_str().into());
            self.blocks.push(block);
        }
    }
}

/// Releases a node's assignments and blocks if the API server confirms that the Node is deleted. Returns whether the
/// Node is deleted. Adds to `released` what the operator released, even if it could not release everything.
pub(super) async fn release_node(
    context: &Context,
    node: &str,
    beat: &Heartbeat,
    released: &mut Holdings,
) -> Result<bool, ReleaseError> {
    beat.beat();
    let fields = format!("spec.nodeName={node}");
    let is_unreadable = |pool: &str| context.cache.with(|index| index.is_unreadable(pool));
    let kept = context.cache.with(|index| index.unreadable_assignment_ranges());
    let mut owned = OwnedObjects { kept, ..OwnedObjects::default() };
    for_each(&context.clients, &fields, |assignment| {
        beat.beat();
        owned.add_assignment(node, assignment, is_unreadable);
    })
    .await?;
    for_each(&context.clients, &fields, |block| owned.add_block(node, block, is_unreadable)).await?;
    if !node_is_gone(&context.clients, node).await? {
        tracing::info!(node, "the Node exists again and keeps its blocks and addresses");
        return Ok(false);
    }
    let OwnedObjects { assignments, blocks, pools, .. } = owned;
    if assignments.is_empty() && blocks.is_empty() {
        return Ok(true);
    }
    released.pools.extend(pools);
    tracing::info!(
        node,
        assignments = assignments.len(),
        blocks = blocks.len(),
        "the Node was deleted, so the operator is releasing its blocks and addresses"
    );
    let api: Api<Lenient<PartialAssignment>> = Api::all(context.clients.requests.clone());
    let deletions = assignments.into_iter().map(|(name, uid)| delete_assignment(&api, name, uid));
    let deletions = futures::stream::iter(deletions).buffer_unordered(MAX_CONCURRENT_WRITES);
    let deletions: Vec<DeleteOutcome> = deletions.inspect(|_| beat.beat()).collect().await;
    let count = |is: fn(&DeleteOutcome) -> bool| deletions.iter().filter(|deletion| is(deletion)).count();
    let left = count(|deletion| !deletion.is_gone());
    context.metrics.assignments_deleted.inc_by((deletions.len() - left) as u64);
    // A call with an unknown outcome may have deleted its assignment. Count that assignment now, because a later
    // attempt would not find it.
    released.addresses += count(|deletion| matches!(deletion, DeleteOutcome::Done | DeleteOutcome::Unknown)) as u64;
    if left > 0 {
        return Err(ReleaseError::AssignmentsLeft(left));
    }
    let api: Api<Lenient<AddressBlock>> = Api::all(context.clients.requests.clone());
    let writes = blocks.into_iter().map(|block| release_block(context, &api, block));
    let writes = futures::stream::iter(writes).buffer_unordered(MAX_CONCURRENT_WRITES);
    let done: Vec<bool> = writes.inspect(|_| beat.beat()).collect().await;
    released.blocks += done.into_iter().filter(|is_done| *is_done).count() as u64;
    Ok(true)
}

/// The outcome of the deletion of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteOutcome {
    /// This call deleted the assignment.
    Done,
    /// No assignment with this name and UID existed any more.
    Absent,
    /// The API server refused the deletion.
    Refused,
    /// The API server may have deleted the assignment.
    Unknown,
}

impl DeleteOutcome {
    /// Whether the assignment certainly no longer exists.
    pub(crate) fn is_gone(self) -> bool {
        matches!(self, Self::Done | Self::Absent)
    }
}

/// Deletes the assignment with this name if its UID is `uid`. A newer assignment with the same name has another UID and
/// stays.
pub(crate) async fn delete_assignment(
    api: &Api<Lenient<PartialAssignment>>,
    name: String,
    uid: String,
) -> DeleteOutcome {
    let preconditions = Preconditions { uid: Some(uid), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match write(WRITE_TIMEOUT, delete(api, &name, &params)).await {
        Outcome::Done(()) => DeleteOutcome::Done,
        Outcome::Refused(Refusal::NotFound | Refusal::Conflict) => DeleteOutcome::Absent,
        Outcome::Refused(why) => {
            tracing::warn!(assignment = name, %why, "the API server refused to delete an IPAssignment; the operator tries again later");
            DeleteOutcome::Refused
        }
        Outcome::Unknown(why) => {
            tracing::debug!(assignment = name, %why, "the operator does not know whether the API server deleted an IPAssignment; the operator checks later");
            DeleteOutcome::Unknown
        }
    }
}

/// Releases a block of a deleted node. The pool's reconciler removes the finalizer later, when no assignment names the block.
/// Returns whether the API server confirmed the release.
async fn release_block(context: &Context, api: &Api<Lenient<AddressBlock>>, block: AddressBlock) -> bool {
    let (spec, metadata) = (&block.spec, &block.metadata);
    let name = metadata.name.as_deref().unwrap_or_default();
    let claim = [
        ("nodeName", spec.node_name.is_some()),
        ("nodeUID", spec.node_uid.is_some()),
        ("nodeIPv4", spec.node_ipv4.is_some()),
        ("nodeIPv6", spec.node_ipv6.is_some()),
    ];
    let claim = claim.into_iter().filter(|(_, is_set)| *is_set);
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": metadata.uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version}),
        json!({"op": "add", "path": "/spec/freeSince", "value": MicroTime(Timestamp::now())}),
    ];
    operations.extend(claim.map(|(field, _)| json!({"op": "remove", "path": format!("/spec/{field}")})));
    match write(WRITE_TIMEOUT, patch(api, name, operations.into())).await {
        Outcome::Done(_) => {
            context.metrics.blocks_released.inc();
            true
        }
        // If a deleted node still owns the block, the next pass lists the block again.
        Outcome::Refused(why) => {
            tracing::info!(block = name, %why, "the API server refused to release a block of a deleted node; the next pass retries if a deleted node still owns the block");
            false
        }
        Outcome::Unknown(why) => {
            tracing::debug!(block = name, %why, "the operator does not know whether the API server released a block of a deleted node. The next pass retries if a deleted node still owns the block");
            false
        }
    }
}
