//! Tests the findings about a missing operator, deleted nodes with running agents, waiting pods, and pools without nodes.

use super::*;
use crate::api::leader::Leader;
use crate::commands::check::finding::Finding;

fn all(observed: &Observation) -> Vec<Finding> {
    compare(observed, &BTreeSet::new())
}

#[test]
fn a_missing_operator_is_found_and_no_finding_promises_its_work() {
    let mut given = healthy();
    given.assignments.push(assignment("10.0.0.77", "p-9", "n1", "x"));
    let mut seen = observed(given);
    assert!(all(&seen)[0].bobbin.starts_with("the operator deletes"));
    seen.namespace = "net".to_owned();
    seen.leader = Leader::GoneSince("2026-01-01T00:00:00Z".parse().expect("a time"));
    let findings = all(&seen);
    let lease = findings.iter().find(|one| one.kind == Kind::NoOperator).expect("a finding");
    assert!(lease.object == "Lease net/bobbin-operator" && lease.since.is_some(), "{lease:?}");
    let void = findings.iter().find(|one| one.kind == Kind::VoidAssignment).expect("a finding");
    assert!(
        void.bobbin.starts_with("nothing now, because no operator is leading; when an operator leads, the operator")
    );
}

#[test]
fn a_deleted_node_whose_agent_runs_is_one_finding_that_counts_its_doubted_blocks() {
    let mut given = healthy();
    given.views[1].1["blocks"][0]["state"] = json!("doubted");
    given.blocks.push(block("p-3", 3, Some("n2")));
    let mut seen = observed(given);
    seen.nodes.remove("n2");
    let findings = all(&seen);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].kind == Kind::DeletedNode && findings[0].object == "Node n2", "{findings:?}");
    assert!(
        findings[0].what.contains("owns 2 blocks")
            && findings[0].what.contains("no address of 1 block that the node may have lost")
    );
    assert!(findings[0].you.contains("restart kubelet on the machine"), "{findings:?}");
    // Without blocks and assignments, the deleted node has no finding `DeletedNode`. So the doubted block is a separate finding.
    seen.blocks.retain(|_, block| block.spec.node_name.as_deref() != Some("n2"));
    seen.assignments.retain(|one| one.spec.node_name != "n2");
    assert!(all(&seen).iter().any(|one| one.kind == Kind::BlockDoubted));
}

#[test]
fn a_doubted_or_lost_block_has_the_time_since_when_it_is() {
    for state in ["doubted", "lost"] {
        let mut given = healthy();
        given.views[0].1["blocks"][0]["state"] = json!(state);
        given.views[0].1["blocks"][0]["since"] = json!("2026-01-01T00:00:00Z");
        let since = all(&observed(given))[0].since;
        assert_eq!(since.map(|since| since.to_string()).as_deref(), Some("2026-01-01T00:00:00Z"));
    }
}

fn with_errors(errors: Value) -> Given {
    let mut given = healthy();
    given.views[0].1["time"] = json!("2026-01-01T00:10:00Z");
    given.views[0].1["errors"] = errors;
    given
}

fn error(verb: &str, pod: &str, time: &str) -> Value {
    json!({"verb": verb, "podNamespace": "shop", "podName": pod, "containerID": "c", "time": time, "error": format!("no address at {time}")})
}

#[test]
fn a_pod_whose_last_add_failed_a_short_time_ago_is_found_with_the_time_of_its_first_failure() {
    let (first, last) = ("2026-01-01T00:05:00Z", "2026-01-01T00:09:00Z");
    let seen = observed(with_errors(json!([error("ADD", "web", first), error("ADD", "web", last)])));
    let findings = all(&seen);
    assert_eq!(found(&seen), one(Kind::PodWithoutNetwork, "pod shop/web"));
    assert!(findings[0].since == first.parse().ok() && findings[0].what.ends_with(last), "{findings:?}");
    assert!(findings[0].you.contains("kubectl bobbin explain web -n shop"), "{findings:?}");
}

#[test]
fn a_pod_that_got_its_network_ended_or_failed_long_ago_does_not_wait() {
    let now = "2026-01-01T00:09:00Z";
    // In the test data, the pod of a running attachment has the name of its container, here `a`.
    assert_eq!(found(&observed(with_errors(json!([error("ADD", "a", now)])))), []);
    assert_eq!(found(&observed(with_errors(json!([error("ADD", "web", "2026-01-01T00:05:00Z")])))), []);
    assert_eq!(found(&observed(with_errors(json!([error("DEL", "web", now)])))), []);
    let mut seen = observed(with_errors(json!([error("ADD", "web", now)])));
    seen.gone_pods.insert(("shop".to_owned(), "web".to_owned()));
    assert_eq!(found(&seen), []);
    let mut given = with_errors(json!([error("ADD", "a", now)]));
    given.views[0].1["attachments"][0]["state"] = json!("ending");
    assert_eq!(found(&observed(given)), one(Kind::PodWithoutNetwork, "pod shop/a"));
}

#[test]
fn a_pool_that_admits_no_node_is_found_unless_the_check_is_about_nodes() {
    let mut seen = observed(healthy());
    let condition = |reason: &str| {
        json!({"type": "Ready", "status": "True", "reason": reason, "message": "no Node has the label",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let pool = |reason: &str| {
        let pool =
            json!({"metadata": {"name": "p"}, "spec": {"subnets": []}, "status": {"conditions": [condition(reason)]}});
        vec![serde_json::from_value(pool).expect("a pool")]
    };
    seen.pools = pool("NoNodeAdmitted");
    assert_eq!(found(&seen), one(Kind::NoNodeAdmitted, "AddressPool p"));
    assert_eq!(compare(&seen, &BTreeSet::from(["n1".to_owned()])), []);
    seen.pools = pool("SubnetsAccepted");
    assert_eq!(found(&seen), []);
}
