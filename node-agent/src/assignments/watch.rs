//! Watches this node's assignments. If someone deletes the assignment of a living attachment, the agent creates the assignment again at
//! once.

use bobbin_api_client::{Clients, Lenient};
use bobbin_crds::IPAssignment;
use bobbin_observability::Heartbeat;
use futures::StreamExt;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use std::collections::HashSet;
use std::sync::Arc;

use crate::assignments::{AssignmentWriter, assignment_name};
use crate::cluster::ClusterCache;
use crate::state::{Attachment, NodeState};

/// Watches this node's assignments until the agent stops. Without this watch, the agent would create deleted assignments again only at the
/// next resync.
pub async fn run(
    clients: Clients,
    cluster: ClusterCache,
    node_state: Arc<NodeState>,
    assignment_writer: AssignmentWriter,
    beat: Heartbeat,
) {
    let api: Api<Lenient<PartialObjectMeta<IPAssignment>>> = Api::all(clients.watches.clone());
    let own = Config::default().fields(&format!("spec.nodeName={}", cluster.node_name()));
    let mut events = bobbin_api_client::watch(api, own);
    cluster.set_assignments_age(events.age());
    let mut listed = HashSet::new();
    while let Some(event) = beat.while_idle(events.next()).await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(assignment) => {
                listed.insert(assignment.name().to_owned());
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut listed);
                recreate_deleted(&node_state, &assignment_writer, |name| !listed.contains(name));
            }
            Event::Delete(assignment) => {
                cluster.unreadable().gone(&assignment);
                recreate_deleted(&node_state, &assignment_writer, |name| name == assignment.name());
            }
            Event::Apply(_) => {}
        }
    }
}

/// Creates missing assignments of living attachments again. Skips each assignment for which a write is pending.
fn recreate_deleted(node_state: &NodeState, assignment_writer: &AssignmentWriter, is_missing: impl Fn(&str) -> bool) {
    for attachment in node_state.attachments().iter().filter(|attachment| was_confirmed(attachment)) {
        if assignment_name(attachment.pair).is_some_and(|name| is_missing(&name))
            && !assignment_writer.busy_with(attachment.pair)
        {
            tracing::warn!(key = %attachment.key, pair = %attachment.pair, "someone deleted the assignment of a live attachment; the agent creates the assignment again");
            assignment_writer.recreate(attachment);
        }
    }
}

/// Whether the API server has confirmed the attachment's assignment, and the attachment still needs the assignment.
fn was_confirmed(attachment: &Attachment) -> bool {
    attachment.needs_assignment() && attachment.assignment_uid.is_some()
}
