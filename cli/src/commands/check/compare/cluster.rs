//! Finds a missing operator, agents that can't be asked, deleted nodes that own something, refused subnets, and pools without nodes.
//! Also finds parts of a node's network that the agent could not repair, and objects that can't be decoded.

use std::collections::{BTreeMap, BTreeSet};

use bobbin_agent_status::BlockPhase;
use bobbin_api_client::{PartialNode, is_object_name};
use bobbin_crds::AddressPool;
use bobbin_messages::condition::READY;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::covers;
use crate::api::leader;
use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::{Observation, Undecodable, View};
use crate::commands::confirm_deletion::HELD;
use crate::print::count::counted;
use crate::show::pools::NO_NODE_ADMITTED;

pub(super) fn compare(observed: &Observation, scope: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = no_operator(observed).into_iter().collect();
    findings.extend(unreachable(observed, scope));
    findings.extend(deleted_nodes(observed, scope));
    for (node, status) in observed.statuses() {
        findings.extend(status.network.not_repaired.iter().map(|what| not_repaired(node, what)));
    }
    findings.extend(observed.undecodable.iter().filter(|one| concerns(scope, one)).map(undecodable));
    if scope.is_empty() {
        findings.extend(refused_subnets(observed));
        findings.extend(observed.pools.iter().filter_map(no_node_admitted));
    }
    findings
}

fn no_operator(observed: &Observation) -> Option<Finding> {
    let namespace = &observed.namespace;
    let absence = observed.leader.absence(namespace, Timestamp::now())?;
    Some(Finding {
        severity: Severity::Error,
        kind: Kind::NoOperator,
        object: format!("Lease {namespace}/{}", leader::LEASE),
        what: format!("{absence}, so nobody creates blocks, and the status of pools may be out of date"),
        since: observed.leader.gone_since(),
        bobbin: "nodes assign addresses of the blocks that exist; nobody releases the blocks of deleted nodes"
            .to_owned(),
        you: leader::remedy(namespace),
        identity: String::new(),
    })
}

fn unreachable(observed: &Observation, scope: &BTreeSet<String>) -> Vec<Finding> {
    let in_scope = observed.nodes.iter().filter(|node| covers(scope, node));
    let finding = |node: &String| match observed.views.get(node) {
        Some(View::Missing(why)) => Some(no_answer(node, why)),
        // A node that owns nothing may be without an agent on purpose. So report it only if the user named it.
        None if observed.owns_something(node) || scope.contains(node) => Some(no_agent(node, &observed.namespace)),
        Some(View::Status(_)) | None => None,
    };
    in_scope.filter_map(finding).collect()
}

/// The finding about an agent that has a pod, but gave no status document.
fn no_answer(node: &str, why: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        kind: Kind::AgentUnreachable,
        object: format!("Node {node}"),
        what: format!("the check can't see the node's attachments and blocks: {why}"),
        since: None,
        bobbin: "if the agent hangs, kubelet restarts it after about a minute. Running pods keep their network, but new pods wait until the agent answers".to_owned(),
        you: "if the agent still gives no answer after two minutes, do what the error says".to_owned(),
        identity: String::new(),
    }
}

fn no_agent(node: &str, namespace: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        kind: Kind::AgentUnreachable,
        object: format!("Node {node}"),
        what: format!(
            "the check can't see the node's attachments and blocks: namespace {namespace} has no agent of the node"
        ),
        since: None,
        bobbin: "nothing; running pods keep their network, but new pods wait if no agent runs".to_owned(),
        you: format!(
            "find out why no agent runs: kubectl get pods -A -o wide --field-selector spec.nodeName={node}. If the agent is in another namespace, add --bobbin-namespace"
        ),
        identity: String::new(),
    }
}

fn deleted_nodes(observed: &Observation, scope: &BTreeSet<String>) -> Vec<Finding> {
    let mut owned: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for node in observed.blocks.values().filter_map(|block| block.spec.node_name.as_deref()) {
        owned.entry(node).or_default().0 += 1;
    }
    for assignment in &observed.assignments {
        owned.entry(&assignment.spec.node_name).or_default().1 += 1;
    }
    owned.retain(|node, _| !observed.nodes.contains(*node) && covers(scope, node));
    let finding = |(node, (blocks, assignments)): (&str, (usize, usize))| {
        if !is_object_name(node) {
            return impossible_node(node, blocks, assignments);
        }
        let known = observed.deleted.nodes.iter().find(|one| one.node == node);
        let is_held = known.is_some_and(|one| one.state == HELD);
        let bobbin = if is_held {
            "the operator waits for a confirmation or for the end of the hold, because many Nodes were deleted together"
        } else {
            "the operator releases the blocks and IPAssignments after the grace period (operator.nodeGracePeriod)"
        };
        // After the deletion of its Node, an agent doubts the node's blocks, because the operator may release these blocks.
        let doubted = match observed.views.get(node) {
            Some(View::Status(status)) => {
                Some(status.blocks.iter().filter(|block| block.state == BlockPhase::Doubted).count())
            }
            _ => None,
        };
        let doubts = doubted.map_or_else(String::new, |count| {
            format!(
                "; the node's agent still runs, and assigns no address of {} that the node may have lost",
                counted(count, "block")
            )
        });
        let you = match (doubted, is_held) {
            (Some(_), _) => {
                "the machine still runs: turn the machine off, or restart kubelet on the machine, so that kubelet registers the Node again"
            }
            (None, true) => "if the machines are off, run: kubectl bobbin nodes confirm-deletion",
            (None, false) => {
                "make sure that the machine is off, or register the Node again; if nothing changes, see the operator's log"
            }
        };
        Finding {
            severity: Severity::Warning,
            kind: Kind::DeletedNode,
            object: format!("Node {node}"),
            what: format!(
                "the Node does not exist, but owns {} and {}{doubts}",
                counted(blocks, "block"),
                counted(assignments, "IPAssignment")
            ),
            since: known.and_then(|one| one.deleted_at),
            bobbin: bobbin.to_owned(),
            you: you.to_owned(),
            identity: String::new(),
        }
    };
    owned.into_iter().map(finding).collect()
}

/// An object has a `nodeName` that no Node can have.
fn impossible_node(node: &str, blocks: usize, assignments: usize) -> Finding {
    Finding {
        severity: Severity::Warning,
        kind: Kind::DeletedNode,
        object: format!("Node {node}"),
        what: format!(
            "no Node can have this name, but {} and {} name it",
            counted(blocks, "block"),
            counted(assignments, "IPAssignment")
        ),
        since: None,
        bobbin: "nothing, because the operator keeps objects with an invalid nodeName".to_owned(),
        you: "if no pod uses their addresses, delete these objects. To find them, run: kubectl get addressblocks,ipassignments -o wide. To delete such a block, first delete the ValidatingAdmissionPolicyBinding bobbin-block-deletions, and restore it with helm upgrade"
            .to_owned(),
        identity: String::new(),
    }
}

fn refused_subnets(observed: &Observation) -> Vec<Finding> {
    let refused = observed.pools.iter().flat_map(|pool| {
        let status = pool.status.iter().flat_map(|status| &status.refused_subnets);
        status.map(|subnet| (pool.name_any(), subnet))
    });
    let finding = |(pool, subnet): (String, &bobbin_crds::pool::RefusedSubnet)| {
        let cidrs: Vec<&str> = [&subnet.ipv4, &subnet.ipv6].into_iter().flatten().map(String::as_str).collect();
        let cidrs = cidrs.join(", ");
        Finding {
            severity: Severity::Warning,
            kind: Kind::RefusedSubnet,
            object: format!("AddressPool {pool}"),
            what: format!("the operator refuses the subnet {cidrs} ({}): {}", subnet.reason, subnet.message),
            since: None,
            bobbin:
                "the operator compares the subnet again at least once a minute, and accepts it when the overlap is gone"
                    .to_owned(),
            you: format!("change or remove the subnet: kubectl edit addresspool {pool}"),
            identity: cidrs,
        }
    };
    refused.map(finding).collect()
}

/// A finding if the pool admits no node.
fn no_node_admitted(pool: &AddressPool) -> Option<Finding> {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let condition = conditions.into_iter().find(|one| one.type_ == READY && one.reason == NO_NODE_ADMITTED)?;
    let name = pool.name_any();
    Some(Finding {
        severity: Severity::Warning,
        kind: Kind::NoNodeAdmitted,
        object: format!("AddressPool {name}"),
        what: condition.message.clone(),
        since: None,
        bobbin: "a node claims blocks of the pool as soon as the pool admits the node".to_owned(),
        you: format!("label a Node, or change spec.nodeSelector: kubectl edit addresspool {name}"),
        identity: String::new(),
    })
}

/// Whether the scope includes the object. It includes all blocks and assignments that can't be decoded, because their nodes are unknown.
fn concerns(scope: &BTreeSet<String>, object: &Undecodable) -> bool {
    let is = |kind: &str| object.kind == kind;
    if is(&PartialNode::kind(&())) {
        covers(scope, &object.name)
    } else {
        scope.is_empty() || !is(&AddressPool::kind(&()))
    }
}

fn undecodable(object: &Undecodable) -> Finding {
    let Undecodable { kind, resource, name, why } = object;
    Finding {
        severity: Severity::Warning,
        kind: Kind::UndecodableObject,
        object: format!("{kind} {name}"),
        what: format!("the command can't decode the object, and does not check what depends on the object: {why}"),
        since: None,
        bobbin: "the agents and the operator count the object as existing and in use".to_owned(),
        you: format!(
            "read the object, and correct the field or upgrade this command: kubectl get {resource} {name} -o yaml"
        ),
        identity: String::new(),
    }
}

fn not_repaired(node: &str, what: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        kind: Kind::NetworkNotRepaired,
        object: format!("Node {node}"),
        what: format!("the agent could not repair the node's network: {what}"),
        since: None,
        bobbin: "the agent tries again at least once a minute".to_owned(),
        you: format!("see the event NetworkNotRepaired on the Node: kubectl describe node {node}"),
        identity: what.to_owned(),
    }
}
