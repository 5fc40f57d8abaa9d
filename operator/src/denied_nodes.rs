//! Denies nodes that break the rules for claims and assignments. A correct agent never breaks these rules. The operator
//! adds the denied nodes to the ConfigMap that the admission policies read.
//!
//! While the ConfigMap lists a node, the API server refuses claims and new assignments of the node. Only an administrator
//! removes entries.

mod claims;
mod config_map;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bobbin_messages::event::operator;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use crate::context::{Context, LOOP_DEADLINE};
use claims::ClaimTracker;

/// The operator denies a node that has more void assignments than this. A void assignment whose pod has the address does
/// not count.
pub(crate) const MAX_VOID_ASSIGNMENTS: usize = 32;

/// The denied nodes and the counts of void assignments. Two tasks of the operator share these values.
#[derive(Default)]
pub(crate) struct DeniedNodes(Mutex<Shared>);

#[derive(Default)]
struct Shared {
    /// The nodes in the ConfigMap, as the leader last read it.
    denied: HashSet<String>,
    /// The nodes whose entry was removed from the ConfigMap. The operator has yet to forget the void assignments of these
    /// nodes.
    lifted: Vec<String>,
    /// For each node, the number of void assignments whose pod does not have the address.
    void_counts: HashMap<Arc<str>, usize>,
}

impl DeniedNodes {
    /// Whether the ConfigMap lists the node.
    pub(crate) fn contains(&self, node: &str) -> bool {
        self.0.lock().denied.contains(node)
    }

    /// Replaces the counts of void assignments.
    pub(crate) fn set_void_counts(&self, counts: HashMap<Arc<str>, usize>) {
        self.0.lock().void_counts = counts;
    }

    /// The nodes whose entries were removed from the ConfigMap since the last call.
    pub(crate) fn take_lifted(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().lifted)
    }

    /// Replaces the denied nodes. Returns the nodes that are no longer denied.
    fn set_denied(&self, denied: HashSet<String>) -> Vec<String> {
        let mut shared = self.0.lock();
        let lifted: Vec<String> = shared.denied.difference(&denied).cloned().collect();
        for node in &lifted {
            shared.void_counts.remove(node.as_str());
        }
        shared.lifted.extend(lifted.iter().cloned());
        shared.denied = denied;
        lifted
    }

    /// The nodes with too many void assignments, each with the reason.
    fn forgers(&self) -> Vec<(Arc<str>, String)> {
        let shared = self.0.lock();
        let forgers = shared.void_counts.iter().filter(|(_, count)| **count > MAX_VOID_ASSIGNMENTS);
        let reason = |count| {
            format!(
                "the node has {count} IPAssignments with addresses that are outside its blocks and that no pod of the node uses. The limit is {MAX_VOID_ASSIGNMENTS}"
            )
        };
        forgers.map(|(node, count)| (Arc::clone(node), reason(count))).collect()
    }
}

/// Finds the nodes to deny and denies them. Never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let mut tracker = ClaimTracker::default();
    let mut read_at: Option<Instant> = None;
    let beat = context.watchdog.register("denied nodes", LOOP_DEADLINE);
    loop {
        tokio::time::sleep(bobbin_api_client::backoff::jittered(context.times.pass_interval())).await;
        beat.beat();
        if !context.is_active() {
            read_at = None;
            tracker = ClaimTracker::default();
            continue;
        }
        let now = Instant::now();
        let beyond = context.cache.with(|index| index.claims_beyond(context.max_addresses_per_node));
        let mut offences = tracker.observe(beyond, now, context.times.claim_grace());
        offences.extend(context.denied.forgers());
        offences.retain(|(node, _)| !context.denied.contains(node));
        let is_due = read_at.is_none_or(|at| now.duration_since(at) >= context.times.denied_refresh());
        if offences.is_empty() && !is_due {
            continue;
        }
        // Read the ConfigMap before any denial. If an administrator has removed a node's entry since the last read,
        // ignore the offences that this node has committed so far.
        let Some(denied) = config_map::read(&context).await else { continue };
        read_at = Some(now);
        let lifted = context.denied.set_denied(denied);
        for node in &lifted {
            tracing::info!(node, "the node is no longer denied, because somebody removed its entry from the ConfigMap");
        }
        for (node, reason) in offences {
            if !context.denied.contains(&node) && !lifted.iter().any(|lifted| **lifted == *node) {
                deny(&context, &node, &reason).await;
            }
        }
        let count = context.denied.0.lock().denied.len();
        context.metrics.denied_nodes.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Adds a node to the ConfigMap, and reports the denial in the log and by an event of the Node.
async fn deny(context: &Context, node: &str, reason: &str) {
    // The time in the entry has whole seconds, so that an administrator can read it easily.
    let now = Timestamp::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    if !config_map::add(context, node, &format!("{now}: {reason}")).await {
        return;
    }
    context.denied.0.lock().denied.insert(node.to_owned());
    let (namespace, name) = (&context.namespace, config_map::NAME);
    let sentence = format!(
        "the operator denies node {node} every claim and every new IPAssignment, because {reason}. The token of the node's agent may be stolen. \
         First delete the agent's pod on the node, which invalidates the token. \
         Then remove the node's entry from ConfigMap {namespace}/{name}: kubectl -n {namespace} patch configmap {name} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/data/{node}\"}}]'"
    );
    tracing::error!(node, "{sentence}");
    let uid = context.cache.with(|index| index.node_uid(node));
    context.events.on_node(node, uid, &operator::NODE_DENIED, &sentence);
}
