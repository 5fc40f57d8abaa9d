//! Releases the assignments and blocks of deleted nodes. For each node, deletes the assignments first and then releases the
//! blocks.
//!
//! For each deleted node, the operator lists the node's blocks and assignments, checks that the Node is still deleted, and
//! then writes. Each write carries the UID and version from the LIST response. If an agent of a new Node with this name has
//! changed a block meanwhile, the API server refuses to release that block.

mod config_map;
mod deletions;
mod grace_period;
mod hold;
mod report;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, Outcome, ReadError, Refusal, backoff, delete, patch, write};
use bobbin_crds::AddressBlock;
use bobbin_ipam::BlockRange;
use bobbin_observability::Heartbeat;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use crate::cache::objects::PartialAssignment;
use crate::cache::{Departure, Holdings, NodeOwners, UnreadableObject};
use crate::context::{Context, LOOP_DEADLINE, MAX_CONCURRENT_WRITES, WRITE_TIMEOUT};
use crate::events::node_reference;
use crate::live_reads::{for_each, node_is_gone};
use grace_period::GracePeriods;
use hold::{Permits, ReclaimHold};
use report::{NodeEvent, NodeReports};

/// How often the operator checks for deleted nodes if no watch reports a change.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);
/// After the grace period of a deleted node, a standby operator checks at this interval whether it has become the leader.
const STANDBY_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum time between two passes over all deleted nodes.
const MIN_PASS_INTERVAL: Duration = Duration::from_millis(50);
/// The operator waits this long after a change, so that further changes cause no additional pass.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The first and the longest wait between two attempts to release the blocks and assignments of one node.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Why a deleted node still owns blocks or assignments after an attempt to release them.
#[derive(Debug, thiserror::Error)]
enum ReleaseError {
    /// A read from the API server failed.
    #[error("reading from the API server failed: {0}")]
    Read(#[from] ReadError),
    /// The deletion of some assignments failed. The operator releases no block while an assignment of the node is left.
    #[error("the API server did not confirm the deletion of {0} assignments of the node")]
    AssignmentsLeft(usize),
}

/// After their grace period, releases the blocks and assignments of deleted nodes, and the reserved addresses that no Node
/// reports. Never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let mut grace_periods = GracePeriods::default();
    let mut hold = ReclaimHold::new(Arc::clone(&context));
    let mut reports = NodeReports::default();
    let mut attempts: HashMap<Arc<str>, (u32, Instant)> = HashMap::new();
    let beat = context.watchdog.register("deleted nodes", LOOP_DEADLINE);
    loop {
        beat.beat();
        // A standby operator also observes deleted nodes. If the standby becomes the leader, the grace periods of these
        // nodes have already begun.
        let owners = context.watches.synced().then(|| context.cache.with(|index| index.owners()));
        let next_address = owners.as_ref().and_then(|owners| {
            context.cache.forget_node_addresses(Instant::now(), context.node_grace_period, &owners.deleted)
        });
        let permits = match &owners {
            Some(owners) if context.is_leader() => hold.observe(owners).await,
            _ => {
                hold.forget();
                reports.forget();
                Permits::default()
            }
        };
        let NodeOwners { deleted: owners, .. } = owners.unwrap_or_default();
        context.metrics.deleted_nodes.set(i64::try_from(owners.len()).unwrap_or(i64::MAX));
        attempts.retain(|node, _| owners.contains_key(node));
        if context.is_leader() {
            reports.observe(&owners, Timestamp::now());
        }
        let next_report = publish_reports(&context, &mut reports, &hold.reference());
        let due = grace_periods.observe(&owners, Instant::now(), context.node_grace_period);
        let next_address = next_address.into_iter().chain(next_report).min();
        let mut wait = due.next.into_iter().chain(next_address).min().unwrap_or(RESYNC_INTERVAL).min(RESYNC_INTERVAL);
        for node in due.nodes {
            if !context.is_leader() {
                wait = wait.min(STANDBY_POLL_INTERVAL);
                break;
            }
            if !permits.may_release(&node, owners.get(&node).copied().unwrap_or(Departure::Unknown)) {
                wait = wait.min(hold::POLL_INTERVAL);
                continue;
            }
            let (count, not_before) = attempts.get(&node).copied().unwrap_or((0, Instant::now()));
            let backoff_left = not_before.saturating_duration_since(Instant::now());
            if !backoff_left.is_zero() {
                wait = wait.min(backoff_left);
                continue;
            }
            match release_node(&context, &node, &beat).await {
                Ok(Some(released)) => reports.released(&node, &released),
                Ok(None) => grace_periods.restart(&node),
                Err(error) => {
                    tracing::warn!(%node, %error, "failed to release the blocks of a deleted node; the operator retries");
                }
            }
            // Even after a success, the operator waits before it handles this node again, because the watches may show the
            // released blocks late.
            let (base, cap) = RETRY;
            let next = backoff(count, base, cap);
            wait = wait.min(next);
            attempts.insert(node, (count.saturating_add(1), Instant::now() + next));
        }
        tokio::select! {
            () = context.cache.nodes_changed.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = tokio::time::sleep(wait.max(MIN_PASS_INTERVAL)) => {}
        }
    }
}

/// The blocks and assignments of a deleted node that the operator may release.
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
    fn add_assignment(&mut self, assignment: Lenient<PartialAssignment>, is_unreadable: impl Fn(&str) -> bool) {
        match assignment {
            Lenient::Readable(assignment) if !is_unreadable(&assignment.spec.pool_name) => {
                self.pools.insert(assignment.spec.pool_name.as_str().into());
                self.assignments.extend(assignment.metadata.name.zip(assignment.metadata.uid));
            }
            Lenient::Readable(_) => {}
            Lenient::Unreadable(assignment) => self.kept.push(UnreadableObject::assignment(assignment.name()).range),
        }
    }

    /// Adds a block to the objects to release. Skips the block if the block, its pool, or an assignment that may have an
    /// address of the block can't be decoded.
    fn add_block(&mut self, block: Lenient<AddressBlock>, is_unreadable: impl Fn(&str) -> bool) {
        let Lenient::Readable(block) = block else { return };
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

/// Publishes the events about deleted nodes that are due. An event about many nodes is an event of the ConfigMap `many`.
/// Returns the time until the next events are due.
fn publish_reports(context: &Context, reports: &mut NodeReports, many: &ObjectReference) -> Option<Duration> {
    let holdings = |nodes: &BTreeSet<Arc<str>>| context.cache.with(|index| index.holdings(nodes));
    let due = reports.due(Instant::now(), context.node_grace_period, holdings);
    for NodeEvent { node, reason, action, is_warning, note } in due.events {
        if is_warning {
            tracing::warn!("{note}");
        } else {
            tracing::info!("{note}");
        }
        let object = node.map_or_else(|| many.clone(), |node| node_reference(&node, None));
        context.events.publish(object, is_warning, reason, action, &note);
    }
    due.next
}

/// Releases a node's assignments and blocks if the API server confirms that the Node is deleted. Returns what the operator
/// released. `None` if the Node exists.
async fn release_node(context: &Context, node: &str, beat: &Heartbeat) -> Result<Option<Holdings>, ReleaseError> {
    beat.beat();
    let fields = format!("spec.nodeName={node}");
    let is_unreadable = |pool: &str| context.cache.with(|index| index.is_unreadable(pool));
    let kept = context.cache.with(|index| index.unreadable_assignment_ranges());
    let mut owned = OwnedObjects { kept, ..OwnedObjects::default() };
    for_each(&context.clients, &fields, |assignment| {
        beat.beat();
        owned.add_assignment(assignment, is_unreadable);
    })
    .await?;
    for_each(&context.clients, &fields, |block| owned.add_block(block, is_unreadable)).await?;
    if !node_is_gone(&context.clients, node).await? {
        tracing::info!(node, "the Node exists again and keeps its blocks and addresses");
        return Ok(None);
    }
    let OwnedObjects { assignments, blocks, pools, .. } = owned;
    if assignments.is_empty() && blocks.is_empty() {
        return Ok(Some(Holdings::default()));
    }
    let mut holdings = Holdings { addresses: assignments.len() as u64, pools, blocks: 0 };
    tracing::info!(
        node,
        assignments = assignments.len(),
        blocks = blocks.len(),
        "the Node was deleted, so the operator is releasing its blocks and addresses"
    );
    let api: Api<Lenient<PartialAssignment>> = Api::all(context.clients.requests.clone());
    let deletions = assignments.into_iter().map(|(name, uid)| delete_assignment(&api, name, uid));
    let deletions = futures::stream::iter(deletions).buffer_unordered(MAX_CONCURRENT_WRITES);
    let deleted: Vec<bool> = deletions.inspect(|_| beat.beat()).collect().await;
    let left = deleted.iter().filter(|is_deleted| !**is_deleted).count();
    context.metrics.assignments_deleted.inc_by((deleted.len() - left) as u64);
    if left > 0 {
        return Err(ReleaseError::AssignmentsLeft(left));
    }
    let api: Api<Lenient<AddressBlock>> = Api::all(context.clients.requests.clone());
    let releases = blocks.into_iter().map(|block| release_block(context, &api, block));
    let releases = futures::stream::iter(releases).buffer_unordered(MAX_CONCURRENT_WRITES);
    let done: Vec<bool> = releases.inspect(|_| beat.beat()).collect().await;
    holdings.blocks = done.into_iter().filter(|is_done| *is_done).count() as u64;
    Ok(Some(holdings))
}

/// Deletes the assignment with this name if its UID is `uid`.
///
/// Returns whether the assignment with this UID no longer exists. A newer assignment with the same name has another UID and
/// stays.
pub(crate) async fn delete_assignment(api: &Api<Lenient<PartialAssignment>>, name: String, uid: String) -> bool {
    let preconditions = Preconditions { uid: Some(uid), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match write(WRITE_TIMEOUT, delete(api, &name, &params)).await {
        Outcome::Done(()) | Outcome::Refused(Refusal::NotFound | Refusal::Conflict) => true,
        Outcome::Refused(why) => {
            tracing::warn!(assignment = name, %why, "the API server refused to delete an IPAssignment; the operator tries again later");
            false
        }
        Outcome::Unknown(why) => {
            tracing::debug!(assignment = name, %why, "the operator does not know whether the API server deleted an IPAssignment; the operator checks later");
            false
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
