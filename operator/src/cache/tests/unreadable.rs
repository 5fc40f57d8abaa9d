//! Tests that an unreadable object counts as existing and keeps its addresses.

use super::*;
use crate::cache::unreadable::address_of;

#[test]
fn the_name_of_an_ipv6_assignment_is_its_address() {
    assert_eq!(address_of("fd00-0000-0000-0000-0000-0000-0000-0001"), "fd00::1".parse().ok());
    assert_eq!(address_of("nonsense"), None);
}

#[test]
fn an_unreadable_block_keeps_its_index_and_counts_as_claimed() {
    let mut index = Index::default();
    index.add_block(unreadable("a-pool-7"));
    let view = index.view("a-pool");
    assert_eq!((view.blocks[0].index, &view.blocks[0].owner), (7, &BlockOwner::Unknown));
    assert!(!view.blocks[0].is_free());
    // Any node may own the unreadable block, so the assignments of the block are not suspect.
    index.add_assignment(assignment("10.0.7.1", "a-pool-7", "n1"));
    assert_eq!(index.suspect_assignments(), []);
    index.block_event(&Event::Delete(unreadable("a-pool-7")));
    assert!(index.reconciled_pools().is_empty() && index.suspect_assignments().len() == 1);
}

#[test]
fn an_unreadable_assignment_counts_for_its_address_and_its_block() {
    let mut index = Index::default();
    index.add_pool(pool("p"));
    index.add_block(block("p", 1, None));
    index.add_block(block("p", 2, None));
    index.add_assignment(assignment("10.0.1.9", "p-1", "n1"));
    index.add_assignment(unreadable("10.0.1.9"));
    let view = index.view("p");
    assert_eq!((view.used, view.blocks[0].assigned, view.blocks[1].assigned), (1, 1, 0));
    assert_eq!(index.view("another").used, 0);
    // An unreadable assignment whose name is not an address may have an address of any block.
    index.add_assignment(unreadable("nonsense"));
    let view = index.view("p");
    assert_eq!((view.used, view.blocks[0].assigned, view.blocks[1].assigned), (2, 2, 1));
    let mut names = index.assignment_names();
    names.sort();
    assert_eq!(names, ["10.0.1.9", "nonsense"]);
    for name in names {
        index.delete_assignment(&name);
    }
    assert_eq!((index.view("p").used, index.suspect_assignments()), (0, vec![]));
}

#[test]
fn an_unreadable_pool_counts_as_existing() {
    let mut index = Index::default();
    index.add_pool(pool("p"));
    index.add_pool(unreadable("p"));
    let view = index.view("p");
    assert!(view.unreadable && view.pool.is_none() && index.reconciled_pools().contains("p"));
    assert_eq!(index.add_pool(pool("p")).pools, ["p".into()]);
    assert!(!index.view("p").unreadable);
    index.add_pool(unreadable("p"));
    assert!(index.pool_event(&Event::Delete(unreadable("p"))).pool_set && index.reconciled_pools().is_empty());
}

#[test]
fn an_unreadable_node_counts_as_existing_and_keeps_its_addresses() {
    let mut index = Index::default();
    index.add_block(block("p", 1, Some("n1")));
    index.add_node(node("n1", Some(OUT_OF_SERVICE)));
    index.add_node(unreadable("n1"));
    assert!(index.owners().deleted.is_empty() && index.has_node("n1"));
    assert_eq!(index.node_addresses().len(), 1);
    // While the Node was unreadable, somebody may have removed its out-of-service taint. So the deleted node gets a
    // grace period.
    index.delete_node("n1");
    assert_eq!(index.owners().deleted.get("n1"), Some(&Departure::Unexpected));
}

#[test]
fn an_unreadable_object_conflicts_with_the_subnets_that_may_contain_it() {
    let mut index = Index::default();
    index.add_pool(pool("p"));
    index.add_block(unreadable("p-3"));
    index.add_block(unreadable("gone-3"));
    index.add_assignment(unreadable("10.9.0.1"));
    index.add_pool(unreadable("odd"));
    let wanted = |text: &str| [bobbin_ipam::SubnetPair::parse(Some(text), None).expect("it is a subnet")];
    let conflicts = |text: &str| {
        let objects = index.unreadable_objects("new");
        let conflicts = objects.iter().flat_map(|object| object.conflicts(&wanted(text)));
        let mut what: Vec<_> = conflicts.map(|conflict| conflict.what).collect();
        what.sort();
        what
    };
    assert_eq!(conflicts("10.0.3.0/24"), ["AddressBlock gone-3", "AddressBlock p-3", "AddressPool odd"]);
    assert_eq!(conflicts("10.0.4.0/24"), ["AddressBlock gone-3", "AddressPool odd"]);
    assert_eq!(conflicts("10.9.0.0/30"), ["AddressBlock gone-3", "AddressPool odd", "IPAssignment 10.9.0.1"]);
    assert!(index.unreadable_objects("odd").iter().all(|object| !object.what.starts_with("AddressPool")));
}
