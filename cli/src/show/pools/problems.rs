//! The problems of a pool, from its conditions.

use bobbin_messages::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

/// The reason of the condition `Ready` while the pool admits no node.
pub(crate) const NO_NODE_ADMITTED: &str = "NoNodeAdmitted";
/// The reasons of the condition `Ready` while the pool drains or is being deleted.
const ENDING: [&str; 2] = ["Draining", "Terminating"];

/// How urgent a problem is. The most urgent comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// Some new pods get no address.
    Error,
    /// An administrator should act.
    Warning,
    /// Nobody needs to act.
    Info,
}

/// A condition that describes a problem of a pool. In JSON, it is only the message.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct PoolProblem {
    #[serde(skip)]
    pub(crate) severity: Severity,
    pub(crate) message: String,
}

/// The problems that the conditions describe, in the order of the conditions. Conditions with the same message are one problem.
pub(super) fn of(conditions: &[Condition]) -> Vec<PoolProblem> {
    let mut found: Vec<PoolProblem> = Vec::new();
    for condition in conditions {
        let Some(severity) = severity(condition) else { continue };
        match found.iter_mut().find(|one| one.message == condition.message) {
            Some(same) => same.severity = same.severity.min(severity),
            None => found.push(PoolProblem { severity, message: condition.message.clone() }),
        }
    }
    found
}

/// How urgent the problem is that a condition describes. `None` if it describes none.
fn severity(one: &Condition) -> Option<Severity> {
    match (one.type_.as_str(), one.status.as_str()) {
        (condition::READY, "False") if ENDING.contains(&one.reason.as_str()) => Some(Severity::Info),
        (condition::READY, "False") | (condition::EXHAUSTED, "True") => Some(Severity::Error),
        (condition::READY, "True") if one.reason == NO_NODE_ADMITTED => Some(Severity::Warning),
        (condition::ACCEPTED, "False")
        | (condition::BLOCKS_EXHAUSTED | condition::ADDRESS_CONFLICT | condition::MISCONFIGURED, "True") => {
            Some(Severity::Warning)
        }
        (condition::READY | condition::ACCEPTED, _) => None,
        // All other conditions: `Terminating`, and the conditions that other programs set.
        (_, "True") => Some(Severity::Info),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(conditions: &[(&str, &str, &str, &str)]) -> Vec<(Severity, String)> {
        let condition = |&(type_, status, reason, message): &(&str, &str, &str, &str)| {
            serde_json::from_value(json!({
                "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"
            }))
            .expect("a condition")
        };
        let conditions: Vec<Condition> = conditions.iter().map(condition).collect();
        of(&conditions).into_iter().map(|one| (one.severity, one.message)).collect()
    }

    #[test]
    fn one_text_of_two_conditions_is_one_problem_with_the_higher_urgency() {
        let refused = [("Accepted", "False", "PoolOverlap", "overlap"), ("Ready", "False", "Overlaps", "overlap")];
        assert_eq!(found(&refused), [(Severity::Error, "overlap".to_owned())]);
    }

    #[test]
    fn each_condition_has_its_own_urgency() {
        let draining = [
            ("Ready", "False", "Draining", "drains"),
            ("Accepted", "True", "SubnetsAccepted", "fine"),
            ("AddressConflict", "True", "ServiceRange", "a Service has an address"),
        ];
        let expected =
            [(Severity::Info, "drains".to_owned()), (Severity::Warning, "a Service has an address".to_owned())];
        assert_eq!(found(&draining), expected);
    }

    #[test]
    fn a_ready_pool_is_a_problem_only_if_it_admits_no_node() {
        let nobody = [("Ready", "True", "NoNodeAdmitted", "no Node")];
        assert_eq!(found(&nobody), [(Severity::Warning, "no Node".to_owned())]);
        assert_eq!(found(&[("Ready", "True", "SubnetsAccepted", "fine"), ("Exhausted", "False", "F", "free")]), []);
    }
}
