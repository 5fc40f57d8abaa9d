//! Decides what is wrong now, from the rows of pools and nodes and from the operator's ConfigMaps.

use std::collections::BTreeMap;

use bobbin_api_client::list_names;
use bobbin_crds::denied_nodes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;

use crate::api::leader::{self, Leader};
use crate::args::DEFAULT_BOBBIN_NAMESPACE;
use crate::commands::confirm_deletion::DeletedNodes;
use crate::show::nodes::NodeRow;
use crate::show::pools::{PoolRow, Severity, State};

/// How many nodes one problem names.
const MAX_NAMES: usize = 5;

/// What the problems are derived from.
pub(super) struct Seen<'a> {
    pub(super) pools: &'a [PoolRow],
    pub(super) nodes: &'a [NodeRow],
    /// Nodes that report no IP address.
    pub(super) without_ip: Vec<String>,
    pub(super) deleted: &'a DeletedNodes,
    /// The ConfigMap of denied nodes.
    pub(super) denied: &'a ConfigMap,
    /// Whether an operator leads.
    pub(super) leader: Leader,
    /// The namespace of Bobbin's operator.
    pub(super) namespace: &'a str,
}

/// Something that is wrong, or that an administrator may want to know.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    severity: Severity,
    object: String,
    message: String,
}

/// All problems, the most urgent first.
pub(super) fn problems(seen: &Seen) -> Vec<Problem> {
    let mut found: Vec<Problem> = seen.pools.iter().flat_map(of_pool).collect();
    found.extend(seen.denied.data.iter().flatten().map(|(node, why)| {
        let what = format!(
            "denied: claims no block, and the API server refuses its new assignments: {why}. {}",
            trust_again(node, seen.namespace)
        );
        problem(Severity::Error, format!("Node {node}"), what)
    }));
    if let Some(absence) = seen.leader.absence(seen.namespace, Timestamp::now()) {
        let what = format!("{absence}, so these numbers may be out of date; {}", leader::remedy(seen.namespace));
        found.push(problem(Severity::Warning, format!("Lease {}/{}", seen.namespace, leader::LEASE), what));
    }
    let held: Vec<&str> = seen.deleted.held().collect();
    if !held.is_empty() {
        let flag = if seen.namespace == DEFAULT_BOBBIN_NAMESPACE {
            String::new()
        } else {
            format!(" --bobbin-namespace {}", seen.namespace)
        };
        let what = format!(
            "deleted, and the operator holds the addresses. If the machines are off, run: kubectl bobbin nodes confirm-deletion{flag}"
        );
        found.push(problem(Severity::Warning, nodes(&held), what));
    }
    let without_ip: Vec<&str> = seen.without_ip.iter().map(String::as_str).collect();
    if !without_ip.is_empty() {
        let what = "no internal or external IP address in the status, so Bobbin can't reserve it or route to the node";
        found.push(problem(Severity::Warning, nodes(&without_ip), what.to_owned()));
    }
    found.extend(of_nodes(seen, &held));
    found.sort_by_key(|problem| problem.severity);
    found
}

/// What to do so that a denied node may claim blocks again. The agent's token may be stolen. The deletion of the
/// agent's pod comes first, because it makes the token invalid.
fn trust_again(node: &str, namespace: &str) -> String {
    let map = denied_nodes::CONFIG_MAP;
    format!(
        "To trust the node again, first delete the agent's pod on the node. Then remove the node's entry: kubectl -n {namespace} patch configmap {map} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/data/{node}\"}}]'"
    )
}

fn of_pool(pool: &PoolRow) -> Vec<Problem> {
    let object = || format!("AddressPool {}", pool.name);
    if pool.problems.is_empty() && pool.state != State::Ready {
        let severity = match pool.state {
            State::NotReady | State::Full => Severity::Error,
            State::NoFreeBlock | State::PartlyAccepted | State::Misconfigured => Severity::Warning,
            State::Deleting | State::Draining | State::Ready => Severity::Info,
        };
        return vec![problem(severity, object(), format!("{:?}; the operator has not said why yet", pool.state))];
    }
    pool.problems.iter().map(|one| problem(one.severity, object(), one.message.clone())).collect()
}

/// The problems of nodes: nodes without a block, deleted nodes, and nodes that have no unused address in a pool
/// without free blocks. Leaves out the deleted nodes in `held`, because the caller reports them.
fn of_nodes(seen: &Seen, held: &[&str]) -> Vec<Problem> {
    let mut without_block = Vec::new();
    let mut deleted = Vec::new();
    let mut full: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let is_short = |name: &str| {
        let pool = seen.pools.iter().find(|pool| pool.name == name);
        pool.is_some_and(|pool| matches!(pool.state, State::Full | State::NoFreeBlock))
    };
    for row in seen.nodes {
        match &row.pool {
            _ if !row.exists && !held.contains(&row.node.as_str()) => deleted.push(row.node.as_str()),
            None => without_block.push(row.node.as_str()),
            Some(pool) if row.exists && row.unused == 0 && is_short(pool) => {
                full.entry(pool).or_default().push(&row.node);
            }
            Some(_) => {}
        }
    }
    let mut found = Vec::new();
    for (pool, names) in full {
        let what =
            format!("no unused address of AddressPool {pool}, which has no free block. New pods on these nodes wait");
        found.push(problem(Severity::Error, nodes(&names), what));
    }
    deleted.dedup();
    if !deleted.is_empty() {
        let what = "deleted, with blocks that the operator releases after the grace period";
        found.push(problem(Severity::Info, nodes(&deleted), what.to_owned()));
    }
    if !without_block.is_empty() {
        let what = "no block of any pool. The agent claims one for the first pod, if a pool admits the node";
        found.push(problem(Severity::Info, nodes(&without_block), what.to_owned()));
    }
    found
}

fn nodes(names: &[&str]) -> String {
    let noun = if names.len() == 1 { "Node" } else { "Nodes" };
    format!("{noun} {}", list_names(names.iter().take(MAX_NAMES), names.len()))
}

fn problem(severity: Severity, object: String, message: String) -> Problem {
    Problem { severity, object, message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(name: &str, conditions: &serde_json::Value) -> bobbin_crds::AddressPool {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"subnets": [{"ipv4": "10.0.0.0/24"}]},
            "status": {"conditions": conditions}
        }))
        .expect("a pool")
    }

    fn condition(type_: &str, status: &str, message: &str) -> serde_json::Value {
        json!({"type": type_, "status": status, "reason": "R", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn row(node: &str, exists: bool, pool: Option<&str>, unused: u64) -> NodeRow {
        NodeRow { node: node.into(), exists, pool: pool.map(Into::into), unused, ..NodeRow::default() }
    }

    #[test]
    fn full_pools_denied_held_and_blockless_nodes_are_problems_in_the_order_of_urgency() {
        let full = json!([condition("Ready", "True", ""), condition("Exhausted", "True", "no address is free")]);
        let good = json!([condition("Ready", "True", "")]);
        let pools = crate::show::pools::rows(&[pool("full", &full), pool("good", &good)]);
        let rows = [
            row("busy", true, Some("full"), 0),
            row("calm", true, Some("good"), 0),
            row("gone", false, Some("good"), 3),
            row("held", false, Some("good"), 3),
            row("idle", true, None, 0),
        ];
        let map = |data: serde_json::Value| serde_json::from_value::<ConfigMap>(json!({"data": data})).expect("a map");
        let deleted =
            DeletedNodes::of(&map(json!({"held": "{\"state\":\"Held\"}", "gone": "{\"state\":\"Waiting\"}"})));
        let denied = map(json!({"evil": "2026-01-01T00:00:00Z: too many"}));
        let without_ip = vec!["bare".to_owned()];
        let seen = |namespace| Seen {
            pools: &pools,
            nodes: &rows,
            without_ip: without_ip.clone(),
            deleted: &deleted,
            denied: &denied,
            leader: if namespace == "net" { Leader::Never } else { Leader::PresentOrUnknown },
            namespace,
        };
        let found = problems(&seen("bobbin-system"));
        let short: Vec<_> = found.iter().map(|one| (one.severity, one.object.as_str())).collect();
        assert_eq!(
            short,
            [
                (Severity::Error, "AddressPool full"),
                (Severity::Error, "Node evil"),
                (Severity::Error, "Node busy"),
                (Severity::Warning, "Node held"),
                (Severity::Warning, "Node bare"),
                (Severity::Info, "Node gone"),
                (Severity::Info, "Node idle"),
            ]
        );
        assert!(found[0].message.contains("no address is free") && found[1].message.contains("too many"), "{found:?}");
        assert!(found[1].message.contains("-n bobbin-system patch configmap bobbin-denied-nodes"), "{found:?}");
        assert!(found[1].message.ends_with(r#"'[{"op":"remove","path":"/data/evil"}]'"#), "{found:?}");
        assert!(found[3].message.ends_with("nodes confirm-deletion"), "{found:?}");
        let elsewhere = problems(&seen("net"));
        assert!(elsewhere[1].message.contains("kubectl -n net patch"), "{elsewhere:?}");
        assert!(elsewhere[3].message.starts_with("no operator has led in namespace net yet"), "{elsewhere:?}");
        assert!(elsewhere[4].message.ends_with("confirm-deletion --bobbin-namespace net"), "{elsewhere:?}");
    }

    #[test]
    fn a_healthy_cluster_has_no_problem_and_many_nodes_are_one_line() {
        let pools = crate::show::pools::rows(&[pool("good", &json!([condition("Ready", "True", "")]))]);
        let (deleted, denied) = (DeletedNodes::of(&ConfigMap::default()), ConfigMap::default());
        let seen = |rows: &[NodeRow]| {
            problems(&Seen {
                pools: &pools,
                nodes: rows,
                without_ip: Vec::new(),
                deleted: &deleted,
                denied: &denied,
                leader: Leader::default(),
                namespace: "bobbin-system",
            })
        };
        assert_eq!(seen(&[row("n", true, Some("good"), 5)]), []);
        let many: Vec<NodeRow> = (0..9).map(|number| row(&format!("n{number}"), true, None, 0)).collect();
        let found = seen(&many);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].object, "Nodes n0, n1, n2, n3, n4 and 4 more");
    }
}
