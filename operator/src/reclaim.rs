//! Takes back what deleted nodes own: their assignments, then their blocks. One task; `node_gone` says when.
//!
//! Order: list what the node owns, then read the Node live, then write, each write tied to what was listed (UID, or
//! resourceVersion). So a Node that is made anew in between, and whose agent takes a block up again, wins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_apiserver::{Outcome, ReadError, Refusal, backoff, read, write};
use bobbin_crds::{AddressBlock, FINALIZER};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::fresh::{READ, each};
use crate::node_gone::Waiting;
use crate::run::Shared;
use crate::slim::{SlimAssignment, SlimNode};

/// How long one write may take.
const WRITE: Duration = Duration::from_secs(10);
/// How many writes are under way at once.
const AT_ONCE: usize = 16;
/// A look is taken at least this often.
const LOOK: Duration = Duration::from_secs(30);

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
        let mut again = due.next.unwrap_or(LOOK).min(LOOK);
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

/// Frees what a node owns, if the Node is gone by the API server's own word. Returns whether it was.
async fn take_back(shared: &Shared, node: &str) -> Result<bool, ReadError> {
    let fields = format!("spec.nodeName={node}");
    let (mut assignments, mut blocks): (Vec<(String, String)>, Vec<AddressBlock>) = (Vec::new(), Vec::new());
    each(&shared.clients, &fields, |assignment: SlimAssignment| {
        let metadata = assignment.metadata;
        assignments.extend(metadata.name.zip(metadata.uid));
    })
    .await?;
    each(&shared.clients, &fields, |block: AddressBlock| blocks.push(block)).await?;
    if !is_gone(shared, node).await? {
        tracing::info!(node, "the Node is there: what it owns stays its own");
        return Ok(false);
    }
    tracing::info!(
        node,
        assignments = assignments.len(),
        blocks = blocks.len(),
        "the Node is gone: what it owned is free"
    );
    let api: Api<SlimAssignment> = Api::all(shared.clients.requests.clone());
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
        return Err(ReadError::Unreachable(bobbin_apiserver::UnknownWhy::Transport(
            "some assignments could not be deleted".into(),
        )));
    }
    let api: Api<AddressBlock> = Api::all(shared.clients.requests.clone());
    futures::stream::iter(blocks).map(|block| free(shared, &api, block)).buffer_unordered(AT_ONCE).count().await;
    Ok(true)
}

/// Whether no Node has the name, by a quorum read.
pub(crate) async fn is_gone(shared: &Shared, node: &str) -> Result<bool, ReadError> {
    let nodes: Api<SlimNode> = Api::all(shared.clients.requests.clone());
    match read(READ, nodes.get(node)).await {
        Ok(_) => Ok(false),
        Err(ReadError::NotFound) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Deletes the assignment of that UID. Returns whether it is gone: refused because another one has its name counts as gone.
pub(crate) async fn delete_assignment(api: &Api<SlimAssignment>, name: String, uid: String) -> bool {
    let preconditions = Preconditions { uid: Some(uid), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match write(WRITE, api.delete(&name, &params)).await {
        Outcome::Done(_) | Outcome::Refused(Refusal::NotFound | Refusal::Conflict) => true,
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

async fn free(shared: &Shared, api: &Api<AddressBlock>, mut block: AddressBlock) {
    let name = block.metadata.name.clone().unwrap_or_default();
    let spec = &mut block.spec;
    (spec.node_name, spec.node_uid, spec.node_ipv4, spec.node_ipv6) = (None, None, None, None);
    spec.free_since = Some(MicroTime(Timestamp::now()));
    block.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    match write(WRITE, api.replace(&name, &PostParams::default(), &block)).await {
        Outcome::Done(_) => {
            shared.metrics.freed_blocks.inc();
        }
        // The next look lists it again if it is still owned by a node that is gone.
        Outcome::Refused(why) => tracing::info!(block = name, %why, "a block of a deleted node has changed"),
        Outcome::Unknown(why) => tracing::debug!(block = name, %why, "nobody knows whether a block was freed"),
    }
}
