//! Tests the index with watch events in different orders.

use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::pool::{Acceptance, AcceptedSubnet, Subnet};
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, AddressPoolSpec, AddressPoolStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::objects::PartialAssignment;
use super::*;

mod unreadable;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

impl Index {
    fn add_pool(&mut self, pool: Lenient<AddressPool>) -> Changes {
        self.pool_event(&Event::Apply(pool))
    }

    fn add_block(&mut self, block: Lenient<AddressBlock>) {
        self.block_event(&Event::Apply(block));
    }

    fn add_assignment(&mut self, assignment: Lenient<PartialAssignment>) {
        self.assignment_event(&Event::Apply(assignment));
    }

    fn add_node(&mut self, node: Lenient<PartialNode>) {
        self.node_event(&Event::Apply(node));
    }

    fn delete_assignment(&mut self, name: &str) {
        self.assignment_event(&Event::Delete(unreadable(name)));
    }

    fn delete_node(&mut self, name: &str) {
        self.node_event(&Event::Delete(node(name, None)));
    }
}

fn block(pool: &str, index: i64, node: Option<&str>) -> Lenient<AddressBlock> {
    free_since(pool, index, node, None)
}

fn free_since(pool: &str, index: i64, node: Option<&str>, second: Option<i64>) -> Lenient<AddressBlock> {
    let spec = AddressBlockSpec {
        pool_name: pool.into(),
        index,
        ipv4: Some(format!("10.0.{index}.0/24")),
        node_name: node.map(str::to_owned),
        free_since: second.map(|second| MicroTime(Timestamp::from_second(second).expect("it is a time"))),
        ..AddressBlockSpec::default()
    };
    Lenient::Readable(AddressBlock::new(&format!("{pool}-{index}"), spec))
}

fn assignment(address: &str, block: &str, node: &str) -> Lenient<PartialAssignment> {
    let pool = block.rsplit_once('-').expect("a block's name has a dash").0;
    serde_json::from_value(json!({"metadata": {"name": address}, "spec": {
        "poolName": pool, "blockName": block, "nodeName": node, "ipv4": address,
    }}))
    .expect("it is an assignment")
}

fn node(name: &str, taint: Option<&str>) -> Lenient<PartialNode> {
    let taints: Vec<_> = taint.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"taints": taints},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
    }))
    .expect("it is a node")
}

/// An unreadable object of any kind.
fn unreadable<K: kube::Resource + serde::de::DeserializeOwned>(name: &str) -> Lenient<K> {
    let object = json!({"metadata": {"name": name, "labels": 7}, "spec": 7});
    let object: Lenient<K> = serde_json::from_value(object).expect("it has a name");
    assert!(object.readable().is_none());
    object
}

/// A pool that has the subnet 10.0.0.0/16 and blocks of 256 addresses.
fn pool(name: &str) -> Lenient<AddressPool> {
    let ipv4 = Some("10.0.0.0/16".to_owned());
    let since = MicroTime(Timestamp::UNIX_EPOCH);
    let accepted =
        AcceptedSubnet { ipv4: ipv4.clone(), ipv6: None, state: Acceptance::Accepted, since, first_index: None };
    let spec = AddressPoolSpec {
        subnets: vec![Subnet { ipv4, ipv6: None }],
        block_size_bits: 8,
        ..AddressPoolSpec::default()
    };
    let mut pool = AddressPool::new(name, spec);
    pool.status = Some(AddressPoolStatus { accepted_subnets: vec![accepted], ..AddressPoolStatus::default() });
    Lenient::Readable(pool)
}

fn pool_names(index: &Index) -> Vec<String> {
    let mut names: Vec<_> = index.pools().iter().map(|pool| pool.name().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_assignment_counts_for_its_block_in_any_order_of_events() {
    let mut index = Index::default();
    index.add_assignment(assignment("10.0.1.1", "p-1", "n1"));
    assert_eq!(index.view("p").used, 1);
    index.add_block(block("p", 1, Some("n1")));
    index.add_assignment(assignment("10.0.1.2", "p-1", "n1"));
    index.add_assignment(assignment("10.0.1.2", "p-1", "n1"));
    assert_eq!(index.view("p").blocks[0].assigned, 2);
    index.delete_assignment("10.0.1.1");
    index.delete_assignment("10.0.1.1");
    let view = index.view("p");
    assert_eq!((view.used, view.blocks[0].assigned), (1, 1));
}

#[test]
fn a_released_address_cools_down_for_the_time_of_its_pool() {
    let mut index = Index::default();
    let cooldown = |cooldown_seconds| {
        Lenient::Readable(AddressPool::new("p", AddressPoolSpec { cooldown_seconds, ..AddressPoolSpec::default() }))
    };
    index.add_pool(cooldown(100));
    index.add_assignment(assignment("10.0.1.1", "p-1", "n1"));
    index.delete_assignment("10.0.1.1");
    let view = index.view("p");
    assert!(view.cooling == 1 && view.next_cooled.is_some_and(|left| left.as_secs() >= 98), "{view:?}");
    index.add_pool(cooldown(0));
    assert_eq!(index.view("p").cooling, 0);
}

#[test]
fn an_address_that_is_assigned_again_does_not_cool_and_cools_once_after_its_next_release() {
    let mut index = Index::default();
    let spec = AddressPoolSpec { cooldown_seconds: 100, ..AddressPoolSpec::default() };
    index.add_pool(Lenient::Readable(AddressPool::new("p", spec)));
    index.add_assignment(assignment("10.0.1.1", "p-1", "n1"));
    index.add_assignment(assignment("10.0.1.2", "p-1", "n1"));
    index.delete_assignment("10.0.1.2");
    index.delete_assignment("10.0.1.1");
    index.add_assignment(assignment("10.0.1.1", "p-1", "n1"));
    assert_eq!((index.view("p").used, index.view("p").cooling), (1, 1));
    index.delete_assignment("10.0.1.1");
    let view = index.view("p");
    assert_eq!((view.used, view.cooling, view.next_cooled.is_some()), (0, 2, true));
}

#[test]
fn a_deleted_node_that_owns_something_is_known_with_its_taint() {
    let mut index = Index::default();
    index.add_node(node("n1", None));
    index.add_node(node("n2", Some(OUT_OF_SERVICE)));
    index.add_node(node("n3", None));
    index.add_block(block("p", 1, Some("n1")));
    index.add_assignment(assignment("10.0.2.1", "p-2", "n2"));
    assert!(index.owners().deleted.is_empty());
    for name in ["n1", "n2", "n3"] {
        index.delete_node(name);
    }
    let gone = index.owners().deleted;
    assert_eq!(
        (gone.len(), gone.get("n1"), gone.get("n2")),
        (2, Some(&Departure::Unexpected), Some(&Departure::OutOfService))
    );
    index.tidy();
    index.add_node(node("n2", None));
    index.delete_node("n2");
    assert_eq!(index.owners().deleted.get("n2"), Some(&Departure::Unexpected));
}

#[test]
fn only_the_exact_name_of_a_block_has_its_index() {
    assert_eq!(super::block::block_index("p", "p-5"), Some(5));
    for other in ["p-05", "p-+5", "p-", "q-5", "p5"] {
        assert_eq!(super::block::block_index("p", other), None, "{other}");
    }
}

#[test]
fn a_name_that_no_node_can_have_is_no_deleted_node() {
    let mut index = Index::default();
    index.add_pool(pool("p"));
    index.add_block(block("p", 1, Some("n1,")));
    index.add_assignment(assignment("10.0.2.1", "p-2", "a=b"));
    index.add_assignment(assignment("10.0.2.2", "p-2", "n9"));
    let owners = index.owners();
    assert_eq!(owners.deleted.keys().map(|name| &**name).collect::<Vec<_>>(), ["n9"]);
    assert_eq!(owners.count, 1);
}

#[test]
fn objects_that_a_new_list_does_not_contain_are_removed() {
    let mut index = Index::default();
    index.add_pool(pool("p"));
    index.add_pool(pool("q"));
    for name in ["n1", "n2", "n3"] {
        index.add_node(node(name, (name == "n2").then_some(OUT_OF_SERVICE)));
    }
    for (number, name) in [(1, "n1"), (2, "n2"), (3, "n3")] {
        index.add_block(block("p", number, Some(name)));
    }
    index.add_assignment(assignment("10.0.1.1", "p-1", "n1"));
    index.add_assignment(assignment("10.0.1.2", "p-1", "n1"));

    index.pool_event(&Event::Init);
    index.pool_event(&Event::InitApply(pool("q")));
    assert_eq!(pool_names(&index), ["p", "q"], "an incomplete list removes nothing");
    index.pool_event(&Event::InitDone);
    assert_eq!(pool_names(&index), ["q"]);

    index.node_event(&Event::Init);
    index.node_event(&Event::InitApply(node("n1", None)));
    index.node_event(&Event::InitDone);
    let gone = index.owners().deleted;
    assert_eq!(
        (gone.len(), gone.get("n2"), gone.get("n3")),
        (2, Some(&Departure::OutOfService), Some(&Departure::Unexpected))
    );

    index.block_event(&Event::Init);
    index.block_event(&Event::InitApply(block("p", 1, Some("n1"))));
    index.block_event(&Event::InitDone);
    assert_eq!(index.view("p").blocks.len(), 1);

    index.assignment_event(&Event::Init);
    index.assignment_event(&Event::InitApply(assignment("10.0.1.2", "p-1", "n1")));
    index.assignment_event(&Event::InitDone);
    assert_eq!(index.assignment_names(), ["10.0.1.2"]);
}

#[test]
fn an_assignment_is_suspect_when_its_node_does_not_own_its_block() {
    let mut index = Index::default();
    index.add_block(block("p", 1, Some("n1")));
    index.add_block(block("p", 2, None));
    index.add_assignment(assignment("10.0.1.1", "p-1", "n1"));
    assert_eq!(index.suspect_assignments(), []);
    index.add_assignment(assignment("10.0.1.2", "p-1", "n2"));
    index.add_assignment(assignment("10.0.2.1", "p-2", "n1"));
    index.add_assignment(assignment("10.0.3.1", "p-3", "n1"));
    let mut suspects = index.suspect_assignments();
    suspects.sort();
    let seen: Vec<_> = suspects
        .iter()
        .map(|suspect| (suspect.name.as_str(), suspect.owner.as_deref(), suspect.block_exists))
        .collect();
    assert_eq!(seen, [("10.0.1.2", Some("n1"), true), ("10.0.2.1", None, true), ("10.0.3.1", None, false)]);
}

#[test]
fn addresses_that_only_nodes_reserve_do_not_count_as_reserved_by_the_spec() {
    let mut index = Index::default();
    let mut pool = pool("p").into_result().expect("it is readable");
    pool.spec.reserved = vec!["10.0.1.16/28".into()];
    index.add_pool(Lenient::Readable(pool));
    index.add_block(block("p", 1, Some("n1")));
    let addresses: Vec<_> =
        (0..6).map(|last| json!({"type": "InternalIP", "address": format!("10.0.1.{last}")})).collect();
    let node = json!({"metadata": {"name": "n2"}, "status": {"addresses": addresses}});
    index.add_node(serde_json::from_value(node).expect("a node"));
    for last in (0..6).chain(16..23) {
        index.add_assignment(assignment(&format!("10.0.1.{last}"), "p-1", "n1"));
    }
    let view = index.view("p");
    assert!(view.node_addresses.len() == 6 && view.node_addresses.iter().all(|node| node.assigned));
    let named: Vec<String> = view.reserved_in_use.named.iter().map(ToString::to_string).collect();
    assert_eq!((view.reserved_in_use.all, view.reserved_in_use.by_spec), (13, 7));
    assert_eq!(named, ["10.0.1.16", "10.0.1.17", "10.0.1.18", "10.0.1.19", "10.0.1.20"]);
}

#[test]
fn unused_names_are_dropped() {
    let mut index = Index::default();
    index.add_block(block("p", 1, None));
    for number in 0..100 {
        let block_name = format!("p{number}-1");
        index.add_block(block(&format!("p{number}"), 1, Some("n1")));
        index.block_event(&Event::Delete(unreadable(&block_name)));
    }
    index.tidy();
    assert_eq!(index.names.len(), 1);
}

#[test]
fn a_pool_reserves_the_address_of_a_node_after_its_deletion_and_after_a_change_of_leader() {
    let at_home = |address: &str| -> Lenient<PartialNode> {
        let addresses = json!([{"type": "InternalIP", "address": address}]);
        serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}})).expect("a node")
    };
    let mut index = Index::default();
    let mut listing = pool("p").into_result().expect("it is readable");
    listing.status.as_mut().expect("it has a status").node_addresses = vec!["10.0.9.9".into()];
    index.add_pool(Lenient::Readable(listing));
    index.add_node(at_home("10.0.7.7"));
    let reserved = |index: &mut Index| -> Vec<String> {
        index.view("p").node_addresses.iter().map(|node| node.address.to_string()).collect()
    };
    assert_eq!(reserved(&mut index), ["10.0.7.7"]);
    index.delete_node("n1");
    assert_eq!((reserved(&mut index), index.node_addresses().len()), (vec!["10.0.7.7".into()], 1));
    index.add_node(at_home("10.0.8.8"));
    assert_eq!(reserved(&mut index), ["10.0.7.7", "10.0.8.8"]);
    // The watch lists all nodes again, and the list does not contain node n1.
    index.node_event(&Event::Init);
    index.node_event(&Event::InitDone);
    assert!(
        index.inherit_node_addresses("p", Instant::now()) && !index.inherit_node_addresses("other", Instant::now())
    );
    assert_eq!(reserved(&mut index), ["10.0.7.7", "10.0.8.8", "10.0.9.9"]);
    let (changes, next) = index.forget_node_addresses(Instant::now(), Duration::ZERO, |_| false, true);
    assert_eq!((changes.pools, next, reserved(&mut index)), (vec!["p".into()], None, vec!["10.0.9.9".into()]));
}

#[test]
fn a_block_counts_as_released_unused_only_if_the_watch_showed_its_claim_without_an_assignment() {
    let unused = |events: &dyn Fn(&mut Index)| {
        let mut index = Index::default();
        events(&mut index);
        index.view("p").blocks[0].was_released_unused()
    };
    let see = |index: &mut Index, node: Option<&str>, second: Option<i64>| {
        index.add_block(free_since("p", 1, node, second));
    };
    let assign = |index: &mut Index| index.add_assignment(assignment("10.0.1.1", "p-1", "n1"));
    assert!(unused(&|index| {
        see(index, Some("n1"), Some(5));
        see(index, None, Some(5));
    }));
    // The watch showed no claim of the block, so the block does not count as released unused.
    assert!(!unused(&|index| see(index, None, Some(5))));
    // The node changed `free_since` when it released the block.
    assert!(!unused(&|index| {
        see(index, Some("n1"), Some(5));
        see(index, None, Some(6));
    }));
    // An assignment of the block was created after the claim.
    assert!(!unused(&|index| {
        see(index, Some("n1"), None);
        assign(index);
        index.delete_assignment("10.0.1.1");
        see(index, None, None);
    }));
    // An assignment of the block existed before the claim.
    assert!(!unused(&|index| {
        assign(index);
        see(index, Some("n1"), None);
        index.delete_assignment("10.0.1.1");
        see(index, None, None);
    }));
    // If nodes claimed the block twice, only the second claim counts.
    assert!(unused(&|index| {
        see(index, Some("n1"), Some(5));
        see(index, Some("n2"), Some(6));
        see(index, None, Some(6));
    }));
}
