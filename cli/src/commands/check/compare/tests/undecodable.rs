//! Tests that an object that can't be decoded counts as present.

use super::*;
use crate::commands::check::observation::Undecodable;

/// The healthy cluster, except that the object of this kind and name can't be decoded.
fn without(kind: &str, name: &str) -> Observation {
    let mut given = healthy();
    let is_readable = |object: &Value| object["metadata"]["name"] != name;
    given.blocks.retain(is_readable);
    given.assignments.retain(is_readable);
    let mut seen = observed(given);
    let why = "invalid type".to_owned();
    seen.undecodable =
        vec![Undecodable { kind: kind.to_owned(), resource: "them".to_owned(), name: name.to_owned(), why }];
    seen
}

#[test]
fn an_undecodable_block_makes_neither_its_assignments_void_nor_its_node_wrong() {
    let mut seen = without("AddressBlock", "p-0");
    assert_eq!(found(&seen), one(Kind::UndecodableObject, "AddressBlock p-0"));
    assert!(compare(&seen, &BTreeSet::new())[0].you.contains("kubectl get them p-0 -o yaml"));
    seen.undecodable.clear();
    assert_eq!(
        found(&seen),
        [
            (Kind::BlockOfAnotherNode, "AddressBlock p-0".to_owned()),
            (Kind::VoidAssignment, "IPAssignment 10.0.0.1".to_owned())
        ]
    );
}

#[test]
fn an_attachment_whose_assignment_is_undecodable_lacks_nothing() {
    let mut seen = without("IPAssignment", "10.0.0.1");
    assert_eq!(found(&seen), one(Kind::UndecodableObject, "IPAssignment 10.0.0.1"));
    seen.undecodable[0].kind = "AddressBlock".to_owned();
    assert!(found(&seen).contains(&(Kind::AttachmentWithoutAssignment, "address 10.0.0.1".to_owned())));
}

#[test]
fn with_names_of_nodes_undecodable_pools_and_other_nodes_are_left_out() {
    let scope = BTreeSet::from(["n1".to_owned()]);
    for (kind, name, expected) in
        [("AddressPool", "p", 0), ("Node", "n2", 0), ("Node", "n1", 1), ("IPAssignment", "10.0.0.1", 1)]
    {
        assert_eq!(compare(&without(kind, name), &scope).len(), expected, "{kind} {name}");
        assert_eq!(compare(&without(kind, name), &BTreeSet::new()).len(), 1, "{kind} {name}");
    }
}
