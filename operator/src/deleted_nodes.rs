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
mod release;
mod report;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::backoff;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::cache::{Departure, Holdings, NodeOwners};
use crate::context::{Context, LOOP_DEADLINE};
use crate::events::node_reference;
use grace_period::GracePeriods;
use hold::{Permits, ReclaimHold};
use release::release_node;
use report::{NodeEvent, NodeReports};

pub(crate) use release::{DeleteOutcome, delete_assignment};

/// How often the operator checks for deleted nodes if no watch reports a change.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);
/// How often a standby operator checks whether it has become the leader, if the grace period of a deleted node is over.
const STANDBY_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum time between two passes over all deleted nodes.
const MIN_PASS_INTERVAL: Duration = Duration::from_millis(50);
/// How long the operator waits after a change before it starts a pass. Changes during this wait cause no additional
/// pass.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The first and the longest wait between two attempts to release the blocks and assignments of one node.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Releases the blocks and assignments of each deleted node after the node's grace period. Also forgets each Node
/// address that no Node has reported for one grace period. Never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let mut grace_periods = GracePeriods::default();
    let mut hold = ReclaimHold::new(Arc::clone(&context));
    let mut reports = NodeReports::default();
    let mut attempts: HashMap<Arc<str>, (u32, Instant)> = HashMap::new();
    let beat = context.watchdog.register("deleted nodes", LOOP_DEADLINE);
    loop {
        beat.beat();
        // A standby operator also observes deleted nodes, so that their grace periods have already begun when it
        // becomes the leader.
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
        let due = grace_periods.observe(&owners, Instant::now(), context.node_grace_period);
        if context.is_leader() {
            let left = |node: &str| grace_periods.left(node, Instant::now(), context.node_grace_period);
            let ends_at = |node: &str| {
                let (now, left) = (Timestamp::now(), SignedDuration::try_from(left(node)).unwrap_or_default());
                now.checked_add(left).unwrap_or(now)
            };
            let is_held = |node: &str| permits.holds(node);
            reports.observe(&owners, |node| permits.was_reported(node, Timestamp::now()), ends_at, is_held);
        }
        let next_report = publish_reports(&context, &mut reports, &hold.reference());
        let next = due.next.into_iter().chain(next_address).chain(next_report).min();
        let mut wait = next.unwrap_or(RESYNC_INTERVAL).min(RESYNC_INTERVAL);
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
            let mut released = Holdings::default();
            let result = release_node(&context, &node, &beat, &mut released).await;
            reports.released(&node, &released);
            match result {
                Ok(true) => {}
                Ok(false) => grace_periods.restart(&node),
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

/// Publishes the due events about deleted nodes. An event about one node refers to its Node. An event about many nodes
/// refers to the ConfigMap `many`. Returns the time until the next events are due.
fn publish_reports(context: &Context, reports: &mut NodeReports, many: &ObjectReference) -> Option<Duration> {
    let holdings = |nodes: &BTreeSet<Arc<str>>| context.cache.with(|index| index.holdings(nodes));
    let due = reports.due(Instant::now(), context.node_grace_period, holdings);
    for NodeEvent { node, event, is_warning, note } in due.events {
        if is_warning {
            tracing::warn!("{note}");
        } else {
            tracing::info!("{note}");
        }
        let object = node.map_or_else(|| many.clone(), |node| node_reference(&node, None));
        context.events.on_object_as(object, is_warning, event, &note);
    }
    due.next
}
