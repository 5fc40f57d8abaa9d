//! The facts stay true whatever comes in which order.

use bobbin_crds::{AddressBlockSpec, AddressPoolSpec};
use serde_json::json;

use super::*;

fn block(pool: &str, index: i64, node: Option<&str>) -> AddressBlock {
    let spec = AddressBlockSpec {
        pool_name: pool.into(),
        index,
        ipv4: Some(format!("10.0.{index}.0/24")),
        node_name: node.map(str::to_owned),
        ..AddressBlockSpec::default()
    };
    AddressBlock::new(&format!("{pool}-{index}"), spec)
}

fn assignment(address: &str, block: &str, node: &str) -> SlimAssignment {
    let pool = block.rsplit_once('-').expect("a block's name has a dash").0;
    serde_json::from_value(json!({"metadata": {"name": address}, "spec": {
        "poolName": pool, "blockName": block, "nodeName": node, "ipv4": address,
    }}))
    .expect("it is an assignment")
}

fn node(name: &str, taint: Option<&str>) -> SlimNode {
    let taints: Vec<_> = taint.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).expect("it is a node")
}

#[test]
fn assignments_count_for_their_block_whichever_comes_first() {
    let mut facts = Facts::default();
    facts.assignment(&assignment("10.0.1.1", "p-1", "n1"));
    assert_eq!(facts.view("p").used, 1);
    facts.block(block("p", 1, Some("n1")));
    facts.assignment(&assignment("10.0.1.2", "p-1", "n1"));
    facts.assignment(&assignment("10.0.1.2", "p-1", "n1"));
    assert_eq!(facts.view("p").blocks[0].assigned, 2);
    facts.no_assignment("10.0.1.1".parse().expect("it is an address"));
    facts.no_assignment("10.0.1.1".parse().expect("it is an address"));
    let view = facts.view("p");
    assert_eq!((view.used, view.blocks[0].assigned), (1, 1));
}

#[test]
fn a_freed_address_rests_for_the_pools_time() {
    let mut facts = Facts::default();
    let rest = |seconds| AddressPoolSpec { cooldown_seconds: seconds, ..AddressPoolSpec::default() };
    facts.pool(AddressPool::new("p", rest(100)));
    facts.assignment(&assignment("10.0.1.1", "p-1", "n1"));
    facts.no_assignment("10.0.1.1".parse().expect("it is an address"));
    let view = facts.view("p");
    assert!(view.cooling == 1 && view.warmer_in.is_some_and(|rest| rest.as_secs() >= 98), "{view:?}");
    facts.pool(AddressPool::new("p", rest(0)));
    assert_eq!(facts.view("p").cooling, 0);
}

#[test]
fn a_gone_node_is_known_by_what_it_owns_and_how_it_left() {
    let mut facts = Facts::default();
    facts.node(&node("n1", None));
    facts.node(&node("n2", Some("node.kubernetes.io/out-of-service")));
    facts.node(&node("n3", None));
    facts.block(block("p", 1, Some("n1")));
    facts.assignment(&assignment("10.0.2.1", "p-2", "n2"));
    assert!(facts.owners_gone().is_empty());
    facts.no_node("n1", None);
    facts.no_node("n2", None);
    facts.no_node("n3", None);
    let gone = facts.owners_gone();
    assert_eq!((gone.len(), gone.get("n1"), gone.get("n2")), (2, Some(&false), Some(&true)));
    facts.tidy();
    facts.node(&node("n2", None));
    facts.no_node("n2", None);
    assert_eq!(facts.owners_gone().get("n2"), Some(&false));
}

#[test]
fn a_record_is_loose_when_its_node_does_not_have_its_block() {
    let mut facts = Facts::default();
    facts.block(block("p", 1, Some("n1")));
    facts.block(block("p", 2, None));
    facts.assignment(&assignment("10.0.1.1", "p-1", "n1"));
    assert_eq!(facts.loose(), []);
    facts.assignment(&assignment("10.0.1.2", "p-1", "n2"));
    facts.assignment(&assignment("10.0.2.1", "p-2", "n1"));
    facts.assignment(&assignment("10.0.3.1", "p-3", "n1"));
    let mut loose = facts.loose();
    loose.sort();
    let seen: Vec<_> =
        loose.iter().map(|loose| (loose.name.as_str(), loose.owner.as_deref(), loose.block_is_there)).collect();
    assert_eq!(seen, [("10.0.1.2", Some("n1"), true), ("10.0.2.1", None, true), ("10.0.3.1", None, false)]);
}

#[test]
fn an_ipv6_record_is_found_by_its_name() {
    let named = |name: &str| {
        let json = json!({"metadata": {"name": name}, "spec": {"poolName": "p", "blockName": "p-0", "nodeName": "n"}});
        assignment_address(&serde_json::from_value(json).expect("it is an assignment"))
    };
    assert_eq!(named("fd00-0000-0000-0000-0000-0000-0000-0001"), "fd00::1".parse().ok());
    assert_eq!(named("nonsense"), None);
}

#[test]
fn names_that_nothing_has_are_forgotten() {
    let mut facts = Facts::default();
    facts.pool(AddressPool::new("p", AddressPoolSpec::default()));
    for number in 0..100 {
        let node_name = format!("n{number}");
        facts.node(&node(&node_name, None));
        facts.no_node(&node_name, None);
    }
    facts.tidy();
    assert_eq!(facts.names.len(), 1);
}
