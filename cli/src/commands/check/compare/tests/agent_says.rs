//! Tests that findings about an assignment name its node, and what the agent of this node says.

use super::*;

/// What the finding of this kind says.
fn what(given: Given, kind: Kind) -> String {
    let findings = compare(&observed(given), &BTreeSet::new());
    findings.into_iter().find(|one| one.kind == kind).expect("a finding").what
}

#[test]
fn an_assignment_without_attachment_names_the_pod_that_has_the_address_instead() {
    let mut given = healthy();
    given.assignments.push(assignment("10.0.0.2", "p-0", "n1", "gone"));
    let text = what(given, Kind::AssignmentWithoutAttachment);
    assert_eq!(
        text,
        "the IPAssignment holds the address for pod shop/gone on node n1, but the agent of node n1 knows no attachment with this address"
    );
    let mut given = healthy();
    given.assignments[0] = assignment("10.0.0.1", "p-0", "n1", "other");
    let text = what(given, Kind::AssignmentWithoutAttachment);
    assert!(text.ends_with("but the agent of node n1 says that pod shop/a has the address"), "{text}");
}

#[test]
fn a_void_assignment_names_its_node_and_what_the_agent_there_says() {
    let void = || assignment("10.0.0.6", "p-1", "n1", "x");
    let mut given = healthy();
    given.assignments.push(void());
    let text = what(given, Kind::VoidAssignment);
    assert!(text.starts_with("the IPAssignment of pod shop/x on node n1 is void"), "{text}");
    assert!(text.ends_with("; the agent of node n1 knows no attachment with this address"), "{text}");
    let mut given = healthy();
    given.assignments.push(void());
    let running = attachment("10.0.0.6", "x", "running");
    given.views[0].1["attachments"].as_array_mut().expect("a list").push(running);
    let text = what(given, Kind::VoidAssignment);
    assert!(text.ends_with("; the agent of node n1 has this attachment in the state running"), "{text}");
    let mut given = healthy();
    given.assignments.push(void());
    given.views.remove(0);
    let text = what(given, Kind::VoidAssignment);
    assert!(text.ends_with("; the check has no answer of an agent of node n1"), "{text}");
}

#[test]
fn an_address_of_two_attachments_names_its_assignment() {
    let mut given = healthy();
    given.views[1].1["attachments"].as_array_mut().expect("a list").push(attachment("10.0.0.1", "c", "running"));
    let text = what(given, Kind::AddressHeldTwice);
    let expected = "; IPAssignment 10.0.0.1 assigns the address to pod shop/a on node n1, and the agent of node n1 has this attachment in the state running";
    assert!(text.ends_with(expected), "{text}");
}
