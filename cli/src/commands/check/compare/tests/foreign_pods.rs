use super::*;
use crate::commands::check::observation::{RunningPod, Undecodable};

fn pod(name: &str, node: &str, addresses: &[&str]) -> RunningPod {
    RunningPod {
        name: ("shop".to_owned(), name.to_owned()),
        node: node.to_owned(),
        addresses: parsed(addresses.iter().copied()),
    }
}

fn with_pods(pods: Vec<RunningPod>) -> Observation {
    let pool = json!({"metadata": {"name": "p"}, "spec": {"blockSizeBits": 2, "subnets": [{"ipv4": "10.0.0.0/24"}]}});
    let pools = vec![serde_json::from_value(pool).expect("a pool")];
    let mut given = healthy();
    given.views.iter_mut().for_each(|(_, view)| view["mode"] = json!("run"));
    Observation { running_pods: pods, pools, ..observed(given) }
}

#[test]
fn running_pods_with_addresses_in_no_pool_are_one_finding_of_their_node() {
    let ours = vec![pod("a", "n1", &["10.0.0.1"]), pod("b", "n2", &["10.0.0.200", "2001:db8::1"])];
    assert_eq!(found(&with_pods(ours.clone())), []);
    let foreign = (1..=7).map(|number| pod(&format!("old-{number}"), "n2", &["192.0.2.1"]));
    let findings = compare(&with_pods(ours.into_iter().chain(foreign).collect()), &BTreeSet::new());
    assert_eq!((findings.len(), findings[0].kind), (1, Kind::PodsOfAnotherPlugin));
    assert_eq!(findings[0].object, "Node n2");
    assert!(
        findings[0].what.contains("7 running pods") && findings[0].what.ends_with("2 more"),
        "{}",
        findings[0].what
    );
    assert!(findings[0].what.contains("shop/old-1 (192.0.2.1)"), "{}", findings[0].what);
}

#[test]
fn pods_of_a_node_that_bobbin_does_not_serve_are_not_foreign() {
    assert_eq!(found(&with_pods(vec![pod("a", "n3", &["192.0.2.1"])])), []);
    let mut removed = healthy();
    removed.views[0].1["mode"] = json!("remove");
    let observed = Observation { running_pods: vec![pod("a", "n1", &["192.0.2.1"])], ..observed(removed) };
    assert_eq!(found(&observed), one(Kind::BobbinBeingRemoved, "Node n1"));
}

#[test]
fn while_a_pool_cannot_be_decoded_no_pod_is_foreign() {
    let undecodable = Undecodable {
        kind: "AddressPool".to_owned(),
        resource: "addresspools".to_owned(),
        name: "q".to_owned(),
        why: "no".to_owned(),
    };
    let observed = Observation { undecodable: vec![undecodable], ..with_pods(vec![pod("a", "n1", &["192.0.2.1"])]) };
    assert_eq!(found(&observed), one(Kind::UndecodableObject, "AddressPool q"));
}

#[test]
fn an_assigned_address_outside_the_pools_is_not_of_another_plugin() {
    let mut observed = with_pods(vec![pod("a", "n1", &["192.0.2.9"])]);
    assert_eq!(found(&observed), one(Kind::PodsOfAnotherPlugin, "Node n1"));
    observed.assignments[0].spec.ipv4 = Some("192.0.2.9".to_owned());
    assert!(!found(&observed).iter().any(|(kind, _)| *kind == Kind::PodsOfAnotherPlugin));
}

#[test]
fn an_address_without_assignment_is_found_although_the_agent_gives_no_answer() {
    let mut observed = with_pods(vec![pod("a", "n1", &["10.0.0.1"])]);
    observed.assignments.retain(|one| one.spec.ipv4.as_deref() != Some("10.0.0.1"));
    observed.views.insert("n1".to_owned(), View::Missing("no answer".to_owned()));
    let mut expected = one(Kind::AttachmentWithoutAssignment, "address 10.0.0.1");
    expected.extend(one(Kind::AgentUnreachable, "Node n1"));
    assert_eq!(found(&observed), expected);
}
