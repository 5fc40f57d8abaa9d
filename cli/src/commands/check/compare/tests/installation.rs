//! Tests the findings about the CNI files of a node, and about a node from which Bobbin is being removed.

use super::*;
use crate::commands::check::finding::{Finding, Severity, is_wrong};

fn with_problem(reason: &str, what: &str) -> Vec<Finding> {
    let mut given = healthy();
    given.views[0].1["installation"] =
        json!({"problems": [{"reason": reason, "since": "2026-01-01T00:00:00Z", "what": what}]});
    let findings = compare(&observed(given), &BTreeSet::new());
    assert!(findings.iter().all(|one| one.object == "Node n1" && !one.bobbin.is_empty() && !one.you.is_empty()));
    findings
}

#[test]
fn each_problem_of_the_installation_is_a_finding_of_its_node() {
    for (reason, severity, kind) in [
        ("CNIConfigShadowed", Severity::Error, Kind::CNIConfigShadowed),
        ("InstallFailed", Severity::Error, Kind::InstallFailed),
        ("CNIVersionLowered", Severity::Warning, Kind::ChainedPluginProblem),
        ("ChainedPluginUnknown", Severity::Warning, Kind::ChainedPluginProblem),
        ("Invented", Severity::Warning, Kind::InstallationProblem),
    ] {
        let findings = with_problem(reason, "10-other.conflist sorts first");
        assert_eq!(findings.len(), 1, "{findings:?}");
        let one = &findings[0];
        assert_eq!((one.severity, one.kind, one.since.is_some()), (severity, kind, true), "{reason}");
        assert_eq!(one.what, "10-other.conflist sorts first");
    }
}

#[test]
fn a_problem_whose_text_changes_between_the_observations_is_confirmed() {
    let again = with_problem("InstallFailed", "error 2");
    assert_eq!(confirmed(&with_problem("InstallFailed", "error 1"), again.clone()), again);
    assert_eq!(confirmed(&with_problem("CNIConfigShadowed", "error 2"), again), []);
}

#[test]
fn a_node_from_which_bobbin_is_being_removed_comes_last_and_nothing_is_wrong() {
    let mut given = healthy();
    given.views[0].1["mode"] = json!("remove");
    given.views[1].1["mode"] = json!("invented");
    let findings = compare(&observed(given), &BTreeSet::new());
    assert_eq!((findings.len(), findings[0].kind), (1, Kind::BobbinBeingRemoved));
    assert!(findings[0].severity == Severity::Info && !is_wrong(&findings), "{findings:?}");
    assert!(findings[0].you.contains("kubectl label node n1 bobbin.dev/agent-"), "{findings:?}");
    let both = [findings, with_problem("CNIVersionLowered", "lower")].concat();
    let sorted = confirmed(&both, both.clone());
    assert!(is_wrong(&sorted) && sorted[1].severity == Severity::Info, "{sorted:?}");
}
