//! Tests each rule of the comparison, and that two observations must agree.

use bobbin_agent_status::AgentStatus;
use serde_json::{Value, json};

use super::*;
use crate::commands::check::finding::{Kind, confirmed};
use crate::commands::check::observation::View;

mod agent_says;
mod broken;
mod foreign_pods;
mod installation;
mod leader_and_pods;
mod undecodable;
mod void_assignments;

fn block(name: &str, index: u64, node: Option<&str>) -> Value {
    json!({"metadata": {"name": name},
           "spec": {"poolName": "p", "index": index, "ipv4": format!("10.0.0.{}/30", 4 * index), "nodeName": node}})
}

fn assignment(address: &str, block: &str, node: &str, container: &str) -> Value {
    json!({"metadata": {"name": address}, "spec": {"poolName": "p", "blockName": block, "nodeName": node, "ipv4": address,
           "containerID": container, "ifName": "eth0", "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "b",
           "podNamespace": "shop", "podName": container}})
}

fn attachment(address: &str, container: &str, state: &str) -> Value {
    json!({"containerID": container, "interface": "eth0", "podNamespace": "shop", "podName": container, "ipv4": address, "state": state})
}

fn serving(name: &str) -> Value {
    json!({"name": name, "pool": "p", "state": "serving", "exported": true, "proven": true})
}

/// An observation of the nodes n1 and n2. Each has a view, an assigned address and a block.
struct Given {
    blocks: Vec<Value>,
    assignments: Vec<Value>,
    views: Vec<(&'static str, Value)>,
}

fn healthy() -> Given {
    let view = |node: &str, block: &str, address: &str, container: &str| json!({"node": node, "blocks": [serving(block)], "attachments": [attachment(address, container, "running")]});
    Given {
        blocks: vec![block("p-0", 0, Some("n1")), block("p-1", 1, Some("n2")), block("p-2", 2, None)],
        assignments: vec![assignment("10.0.0.1", "p-0", "n1", "a"), assignment("10.0.0.5", "p-1", "n2", "b")],
        views: vec![("n1", view("n1", "p-0", "10.0.0.1", "a")), ("n2", view("n2", "p-1", "10.0.0.5", "b"))],
    }
}

fn observed(given: Given) -> Observation {
    let view = |(node, value): (&str, Value)| {
        let status: AgentStatus = serde_json::from_value(value).expect("a document");
        (node.to_owned(), View::Status(Box::new(status)))
    };
    let blocks = given.blocks.into_iter().map(|value| {
        let block: bobbin_crds::AddressBlock = serde_json::from_value(value).expect("a block");
        (block.metadata.name.clone().unwrap_or_default(), block)
    });
    let assigned = given.assignments.into_iter().map(|value| serde_json::from_value(value).expect("an assignment"));
    Observation {
        nodes: ["n1", "n2"].map(str::to_owned).into(),
        blocks: blocks.collect(),
        assignments: assigned.collect(),
        views: given.views.into_iter().map(view).collect(),
        ..Observation::default()
    }
}

/// The kind and object of each finding.
fn found(observed: &Observation) -> Vec<(Kind, String)> {
    let findings = compare(observed, &BTreeSet::new());
    assert!(findings.iter().all(|one| !one.what.is_empty() && !one.bobbin.is_empty() && !one.you.is_empty()));
    let mut found: Vec<_> = findings.into_iter().map(|one| (one.kind, one.object)).collect();
    found.sort();
    found
}

fn one(kind: Kind, object: &str) -> Vec<(Kind, String)> {
    vec![(kind, object.to_owned())]
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    assert_eq!(found(&observed(healthy())), []);
}

#[test]
fn an_assignment_without_attachment_is_found_unless_its_del_is_running() {
    let mut given = healthy();
    given.assignments.push(assignment("10.0.0.2", "p-0", "n1", "gone"));
    assert_eq!(found(&observed(given)), one(Kind::AssignmentWithoutAttachment, "IPAssignment 10.0.0.2"));
    let mut given = healthy();
    given.views[0].1["attachments"][0]["state"] = json!("ending");
    assert_eq!(found(&observed(given)), []);
}

#[test]
fn a_running_attachment_without_assignment_is_found() {
    for (state, expected) in [("running", 1), ("adding", 0), ("ending", 0), ("invented", 0)] {
        let mut given = healthy();
        given.assignments.remove(0);
        given.views[0].1["attachments"][0]["state"] = json!(state);
        let expected = one(Kind::AttachmentWithoutAssignment, "address 10.0.0.1").into_iter().take(expected);
        assert_eq!(found(&observed(given)), expected.collect::<Vec<_>>());
    }
}

#[test]
fn an_address_of_two_nodes_is_one_finding() {
    let mut given = healthy();
    given.views[1].1["attachments"].as_array_mut().expect("a list").push(attachment("10.0.0.1", "c", "running"));
    assert_eq!(found(&observed(given)), one(Kind::AddressHeldTwice, "address 10.0.0.1"));
}

#[test]
fn what_is_wrong_with_a_pair_of_addresses_is_one_finding() {
    let mut given = healthy();
    given.assignments.remove(0);
    given.views[0].1["attachments"][0]["ipv6"] = json!("fd00::1");
    assert_eq!(found(&observed(given)), one(Kind::AttachmentWithoutAssignment, "address 10.0.0.1"));
    let mut given = healthy();
    given.views[0].1["attachments"][0]["ipv6"] = json!("fd00::1");
    given.assignments[0]["spec"]["ipv6"] = json!("fd00::1");
    given.blocks[0]["spec"]["ipv6"] = json!("fd00::/126");
    given.views[1].1["attachments"][0] = given.views[0].1["attachments"][0].clone();
    given.assignments.remove(1);
    assert_eq!(found(&observed(given)), one(Kind::AddressHeldTwice, "address 10.0.0.1"));
}

#[test]
fn an_address_with_the_assignment_of_another_attachment_is_found() {
    let mut given = healthy();
    given.assignments[0] = assignment("10.0.0.1", "p-0", "n1", "other");
    assert_eq!(
        found(&observed(given)),
        [
            (Kind::AddressOfAnotherAttachment, "address 10.0.0.1".to_owned()),
            (Kind::AssignmentWithoutAttachment, "IPAssignment 10.0.0.1".to_owned())
        ]
    );
}

#[test]
fn a_block_that_a_node_serves_must_be_its_own() {
    for (owner, state, kind) in [
        (Some("n2"), "serving", Kind::BlockOfAnotherNode),
        (None, "exporting", Kind::BlockOfAnotherNode),
        (Some("n2"), "lost", Kind::BlockLost),
        (Some("n1"), "doubted", Kind::BlockDoubted),
    ] {
        let mut given = healthy();
        given.assignments.remove(0);
        given.views[0].1["attachments"] = json!([]);
        given.blocks[0] = block("p-0", 0, owner);
        given.views[0].1["blocks"][0]["state"] = json!(state);
        let mut expected = one(kind, "AddressBlock p-0");
        if owner == Some("n2") {
            expected.push((Kind::BlockUnknownToNode, "AddressBlock p-0".to_owned()));
        }
        assert_eq!(found(&observed(given)), expected);
    }
    let mut given = healthy();
    given.blocks[0] = block("p-0", 0, None);
    given.assignments.remove(0);
    given.views[0].1["attachments"] = json!([]);
    given.views[0].1["blocks"][0]["state"] = json!("releasing");
    assert_eq!(found(&observed(given)), []);
}

#[test]
fn a_block_without_route_is_found_when_it_waits_too_long() {
    for (since, expected) in [("2026-01-01T00:00:50Z", 0), ("2026-01-01T00:00:00Z", 1)] {
        let mut given = healthy();
        given.views[0].1["time"] = json!("2026-01-01T00:01:00Z");
        given.views[0].1["blocks"][0] = json!({"name": "p-0", "state": "exporting", "since": since});
        let expected = one(Kind::BlockNotExported, "AddressBlock p-0").into_iter().take(expected);
        assert_eq!(found(&observed(given)), expected.collect::<Vec<_>>());
    }
}

#[test]
fn a_broken_attachment_is_found() {
    let mut given = healthy();
    given.views[0].1["attachments"][0]["state"] = json!("broken");
    assert_eq!(found(&observed(given)), one(Kind::BrokenAttachment, "pod shop/a"));
}

#[test]
fn a_void_assignment_is_found_for_each_reason() {
    for void in [
        assignment("10.0.0.9", "p-0", "n1", "x"),
        assignment("10.0.0.6", "p-1", "n1", "x"),
        assignment("10.0.0.77", "p-9", "n1", "x"),
    ] {
        let mut given = healthy();
        let object = format!("IPAssignment {}", void["metadata"]["name"].as_str().expect("a name"));
        given.assignments.push(void);
        assert_eq!(found(&observed(given)), one(Kind::VoidAssignment, &object));
    }
}

#[test]
fn a_deleted_node_and_an_unreachable_agent_are_found() {
    let mut seen = observed(healthy());
    seen.nodes.remove("n2");
    seen.views.remove("n2");
    seen.views.insert("n1".to_owned(), View::Missing("no answer".to_owned()));
    assert_eq!(
        found(&seen),
        [(Kind::AgentUnreachable, "Node n1".to_owned()), (Kind::DeletedNode, "Node n2".to_owned())]
    );
    assert_eq!(compare(&seen, &BTreeSet::from(["n1".to_owned()])).len(), 1);
}

#[test]
fn a_node_without_agent_is_found_only_if_it_owns_something_or_is_named() {
    let mut seen = observed(healthy());
    seen.nodes.insert("gpu".to_owned());
    assert_eq!(found(&seen), []);
    assert_eq!(compare(&seen, &BTreeSet::from(["gpu".to_owned()])).len(), 1);
    seen.views.remove("n1");
    assert_eq!(found(&seen), one(Kind::AgentUnreachable, "Node n1"));
}

#[test]
fn a_refused_subnet_and_an_unrepaired_network_are_found() {
    let mut given = healthy();
    given.views[0].1["network"] = json!({"notRepaired": ["a rule is missing"]});
    let mut seen = observed(given);
    let pool = json!({"metadata": {"name": "p"}, "spec": {"subnets": [{"ipv4": "10.0.0.0/24"}]}, "status": {"refusedSubnets": [
        {"ipv4": "10.0.0.0/24", "reason": "PoolOverlap", "message": "pool q has these addresses"}]}});
    seen.pools = vec![serde_json::from_value(pool).expect("a pool")];
    assert_eq!(
        found(&seen),
        [(Kind::NetworkNotRepaired, "Node n1".to_owned()), (Kind::RefusedSubnet, "AddressPool p".to_owned())]
    );
}

#[test]
fn only_what_both_observations_show_about_the_same_attachment_is_confirmed() {
    let orphan = |container: &str| {
        let mut given = healthy();
        given.assignments.push(assignment("10.0.0.2", "p-0", "n1", container));
        compare(&observed(given), &BTreeSet::new())
    };
    assert_eq!(confirmed(&orphan("x"), orphan("x")).len(), 1);
    assert_eq!(confirmed(&orphan("x"), orphan("y")), []);
    assert_eq!(confirmed(&orphan("x"), compare(&observed(healthy()), &BTreeSet::new())), []);
}
