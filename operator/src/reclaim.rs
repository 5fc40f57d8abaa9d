//! Takes back what deleted nodes own: their assignments, then their blocks. One task; `node_gone` says when.
//!
//! Order: list what the node owns, then read the Node live, then write, each write tied to what was listed (UID, or
//! resourceVersion). So a Node that is made anew in between, and whose agent takes a block up again, wins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, Outcome, PartialNode, ReadError, Refusal, backoff, delete, patch, read, write};
use bobbin_crds::AddressBlock;
use bobbin_ipam::BlockRange;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use crate::facts::InTheWay;
use crate::fresh::{READ, each};
use crate::node_gone::Waiting;
use crate::run::Shared;
use crate::slim::SlimAssignment;

/// How long one write may take.
const WRITE: Duration = Duration::from_secs(10);
/// How many writes are under way at once.
const AT_ONCE: usize = 16;
/// A look is taken at least this often.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut waiting = Waiting::default();
    let mut failures: HashMap<Arc<str>, (u32, Instant)> = HashMap::new();
    loop {
        // A standby looks too, so that its waits have begun when it is to lead.
        let gone = if shared.ages.synced() { shared.board.facts(|facts| facts.owners_gone()) } else { HashMap::new() };
        shared.metrics.nodes_gone.set(i64::try_from(gone.len()).unwrap_or(i64::MAX));
        failures.retain(|node, _| gone.contains_key(node));
        let due = waiting.look(&gone, Instant::now(), shared.node_gone);
        let mut again = due.next.unwrap_or(CHECK_INTERVAL).min(CHECK_INTERVAL);
        for node in due.now {
            if !shared.leads() {
                again = again.min(Duration::from_secs(1));
                break;
            }
            let (count, not_before) = failures.get(&node).copied().unwrap_or((0, Instant::now()));
            let rest = not_before.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                again = again.min(rest);
                continue;
            }
            match take_back(&shared, &node).await {
                Ok(true) => {}
                Ok(false) => waiting.is_back(&node),
                Err(why) => {
                    tracing::warn!(%node, %why, "what a deleted node owns could not be freed yet");
                }
            }
            // Also after success: the watches may take a moment to show it.
            let rest = backoff(count, Duration::from_millis(500), Duration::from_secs(10));
            again = again.min(rest);
            failures.insert(node, (count.saturating_add(1), Instant::now() + rest));
        }
        tokio::select! {
            () = shared.board.nodes.notified() => tokio::time::sleep(Duration::from_millis(100)).await,
            () = tokio::time::sleep(again.max(Duration::from_millis(50))) => {}
        }
    }
}

/// What a deleted node owns and may be freed.
#[derive(Default)]
struct Owned {
    /// Names and UIDs.
    assignments: Vec<(String, String)>,
    blocks: Vec<AddressBlock>,
    /// Ranges of assignments that can't be read, and stay; `None`: it may be anywhere.
    kept: Vec<Option<BlockRange>>,
}

impl Owned {
    fn assignment(&mut self, assignment: Lenient<SlimAssignment>, is_unreadable: impl Fn(&str) -> bool) {
        match assignment {
            Lenient::Readable(assignment) if !is_unreadable(&assignment.spec.pool_name) => {
                self.assignments.extend(assignment.metadata.name.zip(assignment.metadata.uid));
            }
            Lenient::Readable(_) => {}
            Lenient::Unreadable(assignment) => self.kept.push(InTheWay::assignment(assignment.name()).range),
        }
    }

    /// A block is freed only if nothing of it is unreadable: not the block, not its pool, no record in it.
    fn block(&mut self, block: Lenient<AddressBlock>, is_unreadable: impl Fn(&str) -> bool) {
        let Lenient::Readable(block) = block else { return };
        let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok();
        let holds = |kept: &Option<BlockRange>| match (kept, range) {
            (Some(kept), Some(range)) => kept.overlaps(&range),
            _ => true,
        };
        if !is_unreadable(&block.spec.pool_name) && !self.kept.iter().any(holds) {
            self.blocks.push(block);
        }
    }
}

/// Frees what a node owns, if the Node is gone by the API server's own word. Returns whether it was.
async fn take_back(shared: &Shared, node: &str) -> Result<bool, ReadError> {
    let fields = format!("spec.nodeName={node}");
    let is_unreadable = |pool: &str| shared.board.facts(|facts| facts.is_unreadable(pool));
    let mut owned = Owned { kept: shared.board.facts(|facts| facts.unreadable_assignments()), ..Owned::default() };
    each(&shared.clients, &fields, |assignment| owned.assignment(assignment, is_unreadable)).await?;
    each(&shared.clients, &fields, |block| owned.block(block, is_unreadable)).await?;
    if !is_gone(shared, node).await? {
        tracing::info!(node, "the Node is there: what it owns stays its own");
        return Ok(false);
    }
    let Owned { assignments, blocks, .. } = owned;
    if assignments.is_empty() && blocks.is_empty() {
        return Ok(true);
    }
    tracing::info!(
        node,
        assignments = assignments.len(),
        blocks = blocks.len(),
        "the Node is gone: what it owned is free"
    );
    let api: Api<Lenient<SlimAssignment>> = Api::all(shared.clients.requests.clone());
    let deletions = assignments.into_iter().map(|(name, uid)| delete_assignment(&api, name, uid));
    let kept = futures::stream::iter(deletions).buffer_unordered(AT_ONCE).filter(|freed| {
        if *freed {
            shared.metrics.freed_assignments.inc();
        }
        let kept = !*freed;
        async move { kept }
    });
    if kept.count().await > 0 {
        // A block goes back only when none of its addresses is recorded any more.
        return Err(ReadError::Unreachable(bobbin_api_client::UnknownWhy::Transport(
            "some assignments could not be deleted".into(),
        )));
    }
    let api: Api<Lenient<AddressBlock>> = Api::all(shared.clients.requests.clone());
    futures::stream::iter(blocks).map(|block| free(shared, &api, block)).buffer_unordered(AT_ONCE).count().await;
    Ok(true)
}

/// Whether no Node has the name, by a quorum read.
pub(crate) async fn is_gone(shared: &Shared, node: &str) -> Result<bool, ReadError> {
    let nodes: Api<Lenient<PartialNode>> = Api::all(shared.clients.requests.clone());
    match read(READ, nodes.get(node)).await {
        Ok(_) => Ok(false),
        Err(ReadError::NotFound) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Deletes the assignment of that UID. Returns whether it is gone: refused because another one has its name counts as gone.
pub(crate) async fn delete_assignment(api: &Api<Lenient<SlimAssignment>>, name: String, uid: String) -> bool {
    let preconditions = Preconditions { uid: Some(uid), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match write(WRITE, delete(api, &name, &params)).await {
        Outcome::Done(()) | Outcome::Refused(Refusal::NotFound | Refusal::Conflict) => true,
        Outcome::Refused(why) => {
            tracing::warn!(assignment = name, %why, "an assignment could not be deleted");
            false
        }
        Outcome::Unknown(why) => {
            tracing::debug!(assignment = name, %why, "nobody knows whether an assignment was deleted");
            false
        }
    }
}

/// Frees a block. Its finalizer stays until the keeper of its pool has found no record in it.
async fn free(shared: &Shared, api: &Api<Lenient<AddressBlock>>, block: AddressBlock) {
    let (spec, metadata) = (&block.spec, &block.metadata);
    let name = metadata.name.as_deref().unwrap_or_default();
    let claim = [
        ("nodeName", spec.node_name.is_some()),
        ("nodeUID", spec.node_uid.is_some()),
        ("nodeIPv4", spec.node_ipv4.is_some()),
        ("nodeIPv6", spec.node_ipv6.is_some()),
    ];
    let claim = claim.into_iter().filter(|(_, is_there)| *is_there);
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": metadata.uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version}),
        json!({"op": "add", "path": "/spec/freeSince", "value": MicroTime(Timestamp::now())}),
    ];
    operations.extend(claim.map(|(field, _)| json!({"op": "remove", "path": format!("/spec/{field}")})));
    match write(WRITE, patch(api, name, operations.into())).await {
        Outcome::Done(_) => {
            shared.metrics.freed_blocks.inc();
        }
        // The next look lists it again if it is still owned by a node that is gone.
        Outcome::Refused(why) => tracing::info!(block = name, %why, "a block of a deleted node has changed"),
        Outcome::Unknown(why) => tracing::debug!(block = name, %why, "nobody knows whether a block was freed"),
    }
}
