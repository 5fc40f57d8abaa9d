//! Tests the findings about void assignments and about assignments whose pod is gone, for each state of the pod.

use super::*;
use crate::api::objects::Read;
use crate::commands::check::compare::pods_to_read;
use crate::commands::check::finding::Finding;
use crate::commands::check::observation::Undecodable;

/// An assignment of the pod `shop/x` on node n1 that was created at second 20.
fn named(address: &str, block: &str) -> Value {
    let mut named = assignment(address, block, "n1", "x");
    named["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:20Z");
    named["spec"]["podUID"] = json!("u-1");
    named
}

/// The healthy cluster with this assignment. Block p-0 was created at second 10.
fn with(assignment: Value) -> Observation {
    let mut given = healthy();
    given.blocks[0]["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:10Z");
    given.assignments.push(assignment);
    observed(given)
}

fn pod(uid: &str, ip: &str) -> Read<k8s_openapi::api::core::v1::Pod> {
    let pod = json!({"metadata": {"name": "x", "namespace": "shop", "uid": uid}, "spec": {"containers": [], "nodeName": "n1"},
        "status": {"podIPs": [{"ip": ip}]}});
    Read::Present(serde_json::from_value(pod).expect("a pod"))
}

/// The first finding of this kind, if `pod` is what the API server answers about the pod `shop/x`.
fn about(mut seen: Observation, pod: Read<k8s_openapi::api::core::v1::Pod>, kind: Kind) -> Finding {
    seen.pods.insert(("shop".to_owned(), "x".to_owned()), pod);
    let findings = compare(&seen, &BTreeSet::new());
    findings.into_iter().find(|one| one.kind == kind).expect("a finding")
}

#[test]
fn nobody_needs_to_act_on_a_forged_assignment_or_on_one_whose_pod_is_gone() {
    let forged = about(with(named("10.0.0.77", "p-0")), Read::Absent, Kind::VoidAssignment);
    assert!(forged.bobbin.starts_with("the operator deletes the IPAssignment at once"), "{forged:?}");
    assert_eq!(forged.you, "nothing");
    let gone = about(with(named("10.0.0.6", "p-1")), Read::Absent, Kind::VoidAssignment);
    assert_eq!(gone.bobbin, "the operator deletes the IPAssignment after two checks, 15 minutes apart");
    assert!(gone.you == "nothing" && gone.what.contains("; pod shop/x does not exist; the agent"), "{gone:?}");
    let reused = about(with(named("10.0.0.6", "p-1")), pod("new", "10.0.0.2"), Kind::VoidAssignment);
    assert!(reused.what.contains("; pod shop/x is another pod of the same name; "), "{reused:?}");
    assert_eq!((&reused.bobbin, &reused.you), (&gone.bobbin, &gone.you));
}

#[test]
fn a_pod_that_may_use_a_void_address_must_be_deleted() {
    for (address, block) in [("10.0.0.77", "p-0"), ("10.0.0.6", "p-1")] {
        let used = about(with(named(address, block)), pod("u-1", address), Kind::VoidAssignment);
        assert_eq!(used.bobbin, "the operator deletes the IPAssignment when the pod is gone");
        assert_eq!(used.you, "delete the pod, so that its replacement gets another address");
        assert!(used.what.contains("; pod shop/x reports this address; "), "{used:?}");
    }
    let other = about(with(named("10.0.0.6", "p-1")), pod("u-1", "10.0.0.2"), Kind::VoidAssignment);
    assert!(other.what.contains("; pod shop/x reports only other addresses; "), "{other:?}");
}

#[test]
fn the_check_says_that_it_does_not_know_the_pod() {
    for (address, block, when) in [("10.0.0.77", "p-0", "at once"), ("10.0.0.6", "p-1", "after two checks")] {
        let unknown = about(with(named(address, block)), Read::Unknown, Kind::VoidAssignment);
        assert!(unknown.what.contains("; the check has no answer about pod shop/x; "), "{unknown:?}");
        assert!(unknown.bobbin.contains(when) && unknown.bobbin.contains("if the pod is gone"), "{unknown:?}");
        assert!(unknown.you.contains("did not read the pod") && unknown.you.contains("kubectl get pod x -n shop"));
    }
}

#[test]
fn a_person_may_delete_an_assignment_that_names_no_pod_if_nobody_uses_it() {
    let mut unnamed = named("10.0.0.6", "p-1");
    for field in ["podNamespace", "podName", "podUID"] {
        unnamed["spec"][field] = Value::Null;
    }
    let unnamed = about(with(unnamed), Read::Unknown, Kind::VoidAssignment);
    assert!(unnamed.bobbin.contains("only if it denies node n1"), "{unnamed:?}");
    assert_eq!(unnamed.you, "if no pod on node n1 has the address, run: kubectl delete ipassignment 10.0.0.6");
}

#[test]
fn the_operator_deletes_nothing_of_an_undecodable_pool() {
    let mut seen = with(named("10.0.0.6", "p-1"));
    let (kind, resource) = ("AddressPool".to_owned(), "addresspools".to_owned());
    seen.undecodable = vec![Undecodable { kind, resource, name: "p".to_owned(), why: "invalid".to_owned() }];
    let kept = about(seen, Read::Absent, Kind::VoidAssignment);
    assert!(kept.bobbin.ends_with(", but not while it can't decode AddressPool p"), "{kept:?}");
}

#[test]
fn an_assignment_of_an_earlier_pod_of_the_name_is_not_of_the_pod_that_runs() {
    let seen = || with(named("10.0.0.2", "p-0"));
    let reused = about(seen(), pod("new", "10.0.0.3"), Kind::AssignmentWithoutAttachment);
    assert!(
        reused.what.ends_with("knows no attachment with this address; pod shop/x is another pod of the same name"),
        "{reused:?}"
    );
    assert!(!reused.you.contains("delete"), "{reused:?}");
    let runs = about(seen(), pod("u-1", "10.0.0.3"), Kind::AssignmentWithoutAttachment);
    assert!(
        runs.what.ends_with("knows no attachment with this address") && runs.you.contains("delete the IPAssignment"),
        "{runs:?}"
    );
}

#[test]
fn a_person_waits_for_the_agent_only_if_the_agent_sees_the_pod_gone() {
    let you = |assignment: Value, pod| about(with(assignment), pod, Kind::AssignmentWithoutAttachment).you;
    let of_node = named("10.0.0.2", "p-0");
    assert!(you(of_node.clone(), Read::Absent).starts_with("wait until the agent has compared twice"));
    assert!(you(of_node.clone(), Read::Unknown).contains("delete the IPAssignment"));
    let mut elsewhere = pod("u-1", "10.0.0.3");
    if let Read::Present(pod) = &mut elsewhere {
        pod.spec.as_mut().expect("a spec").node_name = Some("n2".to_owned());
    }
    assert!(you(of_node.clone(), elsewhere).contains("delete the IPAssignment"));
    let mut of_static_pod = of_node;
    of_static_pod["spec"]["podUID"] = json!("hash");
    assert!(you(of_static_pod, Read::Absent).contains("delete the IPAssignment"));
}

#[test]
fn a_void_assignment_of_a_node_that_does_not_exist_is_found_besides_the_node() {
    let of_n9 = |address: &str, block: &str| {
        let mut assignment = named(address, block);
        assignment["spec"]["nodeName"] = json!("n9");
        with(assignment)
    };
    let scope = BTreeSet::from(["n9".to_owned()]);
    let kinds = |seen: &Observation| -> Vec<Kind> { compare(seen, &scope).into_iter().map(|one| one.kind).collect() };
    let seen = of_n9("10.0.0.6", "p-1");
    assert_eq!(kinds(&seen), [Kind::VoidAssignment, Kind::DeletedNode]);
    let void = about(seen, Read::Absent, Kind::VoidAssignment);
    assert!(void.bobbin.contains("after the grace period") && void.you == "nothing", "{void:?}");
    let forged = about(of_n9("10.0.0.77", "p-0"), Read::Absent, Kind::VoidAssignment);
    assert!(forged.bobbin.contains("at once"), "{forged:?}");
    let mut valid = of_n9("10.0.0.9", "p-2");
    if let Some(block) = valid.blocks.get_mut("p-2") {
        block.spec.node_name = Some("n9".to_owned());
    }
    assert_eq!(kinds(&valid), [Kind::DeletedNode]);
}

#[test]
fn only_pods_of_void_or_unattached_assignments_are_read() {
    let pods =
        |seen: &Observation, scope: &[&str]| pods_to_read(seen, &scope.iter().map(|&node| node.to_owned()).collect());
    let of_x = BTreeSet::from([("shop".to_owned(), "x".to_owned())]);
    for doubtful in [named("10.0.0.6", "p-1"), named("10.0.0.2", "p-0")] {
        let seen = with(doubtful);
        assert_eq!((pods(&seen, &[]), pods(&seen, &["n1"])), (of_x.clone(), of_x.clone()));
        assert!(pods(&seen, &["n2"]).is_empty());
    }
    let mut running = named("10.0.0.2", "p-0");
    running["spec"]["containerID"] = json!("a");
    assert!(pods(&with(running), &[]).is_empty());
}
