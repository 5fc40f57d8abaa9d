//! The facts stay true whatever comes in which order.

use bobbin_crds::pool::{Acceptance, AcceptedSubnet, Subnet};
use bobbin_crds::{AddressBlockSpec, AddressPoolSpec, AddressPoolStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;

fn block(pool: &str, index: i64, node: Option<&str>) -> Lenient<AddressBlock> {
    Lenient::Readable(freed(pool, index, node, None))
}

fn freed(pool: &str, index: i64, node: Option<&str>, free_since: Option<i64>) -> AddressBlock {
    let spec = AddressBlockSpec {
        pool_name: pool.into(),
        index,
        ipv4: Some(format!("10.0.{index}.0/24")),
        node_name: node.map(str::to_owned),
        free_since: free_since.map(|second| MicroTime(Timestamp::from_second(second).expect("it is a time"))),
        ..AddressBlockSpec::default()
    };
    AddressBlock::new(&format!("{pool}-{index}"), spec)
}

fn assignment(address: &str, block: &str, node: &str) -> Lenient<SlimAssignment> {
    let pool = block.rsplit_once('-').expect("a block's name has a dash").0;
    serde_json::from_value(json!({"metadata": {"name": address}, "spec": {
        "poolName": pool, "blockName": block, "nodeName": node, "ipv4": address,
    }}))
    .expect("it is an assignment")
}

fn node(name: &str, taint: Option<&str>) -> Lenient<PartialNode> {
    let taints: Vec<_> = taint.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).expect("it is a node")
}

#[test]
fn assignments_count_for_their_block_whichever_comes_first() {
    let mut facts = Facts::default();
    facts.assignment(&assignment("10.0.1.1", "p-1", "n1"));
    assert_eq!(facts.view("p").used, 1);
    facts.block(&block("p", 1, Some("n1")));
    facts.assignment(&assignment("10.0.1.2", "p-1", "n1"));
    facts.assignment(&assignment("10.0.1.2", "p-1", "n1"));
    assert_eq!(facts.view("p").blocks[0].assigned, 2);
    facts.no_assignment("10.0.1.1");
    facts.no_assignment("10.0.1.1");
    let view = facts.view("p");
    assert_eq!((view.used, view.blocks[0].assigned), (1, 1));
}

#[test]
fn a_freed_address_rests_for_the_pools_time() {
    let mut facts = Facts::default();
    let rest = |seconds| AddressPoolSpec { cooldown_seconds: seconds, ..AddressPoolSpec::default() };
    facts.pool(Lenient::Readable(AddressPool::new("p", rest(100))));
    facts.assignment(&assignment("10.0.1.1", "p-1", "n1"));
    facts.no_assignment("10.0.1.1");
    let view = facts.view("p");
    assert!(view.cooling == 1 && view.warmer_in.is_some_and(|rest| rest.as_secs() >= 98), "{view:?}");
    facts.pool(Lenient::Readable(AddressPool::new("p", rest(0))));
    assert_eq!(facts.view("p").cooling, 0);
}

#[test]
fn a_gone_node_is_known_by_what_it_owns_and_how_it_left() {
    let mut facts = Facts::default();
    facts.node(&node("n1", None));
    facts.node(&node("n2", Some("node.kubernetes.io/out-of-service")));
    facts.node(&node("n3", None));
    facts.block(&block("p", 1, Some("n1")));
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
    facts.block(&block("p", 1, Some("n1")));
    facts.block(&block("p", 2, None));
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
    assert_eq!(address_of("fd00-0000-0000-0000-0000-0000-0000-0001"), "fd00::1".parse().ok());
    assert_eq!(address_of("nonsense"), None);
}

#[test]
fn names_that_nothing_has_are_forgotten() {
    let mut facts = Facts::default();
    facts.pool(Lenient::Readable(AddressPool::new("p", AddressPoolSpec::default())));
    for number in 0..100 {
        let node_name = format!("n{number}");
        facts.node(&node(&node_name, None));
        facts.no_node(&node_name, None);
    }
    facts.tidy();
    assert_eq!(facts.names.len(), 1);
}

/// An object of any kind with this name that can't be read.
fn unreadable<K: kube::Resource + serde::de::DeserializeOwned>(name: &str) -> Lenient<K> {
    let object = json!({"metadata": {"name": name, "labels": 7}, "spec": 7});
    let object: Lenient<K> = serde_json::from_value(object).expect("it has a name");
    assert!(object.readable().is_none());
    object
}

/// A pool of 10.0.0.0/16 in blocks of 256 addresses.
fn pool(name: &str) -> AddressPool {
    let ipv4 = Some("10.0.0.0/16".to_owned());
    let since = MicroTime(Timestamp::UNIX_EPOCH);
    let accepted = AcceptedSubnet { ipv4: ipv4.clone(), ipv6: None, state: Acceptance::Accepted, since };
    let spec = AddressPoolSpec {
        subnets: vec![Subnet { ipv4, ipv6: None }],
        block_size_bits: 8,
        ..AddressPoolSpec::default()
    };
    let mut pool = AddressPool::new(name, spec);
    pool.status = Some(AddressPoolStatus { accepted_subnets: vec![accepted], ..AddressPoolStatus::default() });
    pool
}

#[test]
fn an_unreadable_block_keeps_its_index_and_counts_as_claimed() {
    let mut facts = Facts::default();
    facts.block(&unreadable("a-pool-7"));
    let view = facts.view("a-pool");
    assert_eq!((view.blocks[0].index, &view.blocks[0].holder), (7, &Holder::Unknown));
    assert!(!view.blocks[0].is_free());
    assert_eq!(facts.block_names(), ["a-pool-7"]);
    // A record in it may well be its node's.
    facts.assignment(&assignment("10.0.7.1", "a-pool-7", "n1"));
    assert_eq!(facts.loose(), []);
    facts.no_block("a-pool-7");
    assert!(facts.kept().is_empty() && facts.loose().len() == 1);
}

#[test]
fn an_unreadable_assignment_occupies_its_address_and_keeps_the_block_around_it() {
    let mut facts = Facts::default();
    facts.pool(Lenient::Readable(pool("p")));
    facts.block(&block("p", 1, None));
    facts.block(&block("p", 2, None));
    facts.assignment(&assignment("10.0.1.9", "p-1", "n1"));
    facts.assignment(&unreadable("10.0.1.9"));
    let view = facts.view("p");
    assert_eq!((view.used, view.blocks[0].assigned, view.blocks[1].assigned), (1, 1, 0));
    assert_eq!(facts.view("another").used, 0);
    // One of which nobody knows the address may be anywhere.
    facts.assignment(&unreadable("nonsense"));
    let view = facts.view("p");
    assert_eq!((view.used, view.blocks[0].assigned, view.blocks[1].assigned), (2, 2, 1));
    let mut names = facts.assignment_names();
    names.sort();
    assert_eq!(names, ["10.0.1.9", "nonsense"]);
    for name in names {
        facts.no_assignment(&name);
    }
    assert_eq!((facts.view("p").used, facts.loose()), (0, vec![]));
}

#[test]
fn an_unreadable_pool_and_an_unreadable_node_are_there() {
    let mut facts = Facts::default();
    facts.pool(Lenient::Readable(pool("p")));
    facts.pool(unreadable("p"));
    let view = facts.view("p");
    assert!(view.unreadable && view.pool.is_none() && facts.kept().contains("p") && facts.pool_names() == ["p"]);
    assert_eq!(facts.pool(Lenient::Readable(pool("p"))).pools, ["p".into()]);
    assert!(!facts.view("p").unreadable);
    facts.pool(unreadable("p"));
    assert!(facts.no_pool("p").population && facts.kept().is_empty());

    facts.block(&block("p", 1, Some("n1")));
    facts.node(&unreadable("n1"));
    assert!(facts.owners_gone().is_empty() && facts.has_node("n1"));
}

#[test]
fn what_is_unreadable_is_in_the_way_where_it_may_have_addresses() {
    let mut facts = Facts::default();
    facts.pool(Lenient::Readable(pool("p")));
    facts.block(&unreadable("p-3"));
    facts.block(&unreadable("gone-3"));
    facts.assignment(&unreadable("10.9.0.1"));
    facts.pool(unreadable("odd"));
    let wanted = |text: &str| [bobbin_ipam::SubnetPair::parse(Some(text), None).expect("it is a subnet")];
    let told = |text: &str| {
        let all: Vec<_> = facts.in_the_way("new").iter().flat_map(|object| object.conflicts(&wanted(text))).collect();
        let mut what: Vec<_> = all.into_iter().map(|conflict| conflict.what).collect();
        what.sort();
        what
    };
    assert_eq!(told("10.0.3.0/24"), ["AddressBlock gone-3", "AddressBlock p-3", "AddressPool odd"]);
    assert_eq!(told("10.0.4.0/24"), ["AddressBlock gone-3", "AddressPool odd"]);
    assert_eq!(told("10.9.0.0/30"), ["AddressBlock gone-3", "AddressPool odd", "IPAssignment 10.9.0.1"]);
    // A pool is not in its own way.
    assert!(facts.in_the_way("odd").iter().all(|object| !object.what.starts_with("AddressPool")));
}

#[test]
fn a_block_went_back_unused_only_if_it_was_seen_claimed_without_a_record_and_with_the_same_free_since() {
    let unused = |look: &dyn Fn(&mut Facts)| {
        let mut facts = Facts::default();
        look(&mut facts);
        facts.view("p").blocks[0].went_back_unused()
    };
    let is = |facts: &mut Facts, node: Option<&str>, free_since: Option<i64>| {
        facts.block(&Lenient::Readable(freed("p", 1, node, free_since)));
    };
    let record = |facts: &mut Facts| drop(facts.assignment(&assignment("10.0.1.1", "p-1", "n1")));
    assert!(unused(&|facts| {
        is(facts, Some("n1"), Some(5));
        is(facts, None, Some(5));
    }));
    // Never seen claimed; given back with a new time; a record since the claim, or from before; another node in between.
    assert!(!unused(&|facts| is(facts, None, Some(5))));
    assert!(!unused(&|facts| {
        is(facts, Some("n1"), Some(5));
        is(facts, None, Some(6));
    }));
    assert!(!unused(&|facts| {
        is(facts, Some("n1"), None);
        record(facts);
        facts.no_assignment("10.0.1.1");
        is(facts, None, None);
    }));
    assert!(!unused(&|facts| {
        record(facts);
        is(facts, Some("n1"), None);
        facts.no_assignment("10.0.1.1");
        is(facts, None, None);
    }));
    assert!(unused(&|facts| {
        is(facts, Some("n1"), Some(5));
        is(facts, Some("n2"), Some(6));
        is(facts, None, Some(6));
    }));
}
