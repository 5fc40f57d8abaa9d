//! What became of the evictions, in one line for all pods with the same outcome. Pure.

use std::collections::BTreeMap;

use bobbin_api_client::list_names;

use crate::print::output::escaped;

/// How many pods one line names.
const MAX_NAMES: usize = 5;

/// The outcome of one eviction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Evicted,
    /// The pod is being deleted.
    Ending,
    Gone,
    StaticPod,
    /// The assignment does not name the UID of its pod.
    UidUnknown,
    NoController,
    /// The pod's replacement would select the draining pool, and so get no address.
    SamePool,
    /// Several PodDisruptionBudgets select the pod, which the API server does not support.
    SeveralBudgets,
    /// The API server refuses the eviction now. The command tries again.
    Refused(String),
}

impl Outcome {
    /// Whether the command does nothing more about the pod.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Outcome::Refused(_))
    }

    /// The sentence about one pod without its subject.
    fn of_one(&self, pool: &str) -> String {
        let kept = match self {
            Outcome::Evicted => return "is evicted".to_owned(),
            Outcome::Ending => return "is ending".to_owned(),
            Outcome::Gone => return "does not exist any more; its address is released later".to_owned(),
            Outcome::Refused(why) => return format!("is not evicted yet: {why}"),
            Outcome::StaticPod => "it is a static pod. Remove its manifest from the node".to_owned(),
            Outcome::SeveralBudgets => {
                "several PodDisruptionBudgets select it, so Kubernetes can't evict it. Delete the pod, or all but one of these budgets".to_owned()
            }
            Outcome::UidUnknown => {
                "its IPAssignment does not say which pod of this name has the address. Delete the pod".to_owned()
            }
            Outcome::NoController => {
                "it has no controller that would create the pod again. Delete the pod, or use --force".to_owned()
            }
            Outcome::SamePool => format!(
                "its replacement would select AddressPool {pool} again and get no address. Change the annotation bobbin.dev/pool of the workload or of the namespace first, or use --force"
            ),
        };
        format!("is not evicted: {kept}")
    }

    /// The sentence about several pods without its subject.
    fn of_many(&self, pool: &str) -> String {
        let kept = match self {
            Outcome::Evicted => return "are evicted".to_owned(),
            Outcome::Ending => return "are ending".to_owned(),
            Outcome::Gone => return "do not exist any more; their addresses are released later".to_owned(),
            Outcome::Refused(why) => return format!("are not evicted yet: {why}"),
            Outcome::StaticPod => "they are static pods. Remove their manifests from the nodes".to_owned(),
            Outcome::SeveralBudgets => {
                "several PodDisruptionBudgets select each of them, so Kubernetes can't evict them. Delete the pods, or all but one of these budgets".to_owned()
            }
            Outcome::UidUnknown => {
                "their IPAssignments do not say which pods of these names have the addresses. Delete the pods"
                    .to_owned()
            }
            Outcome::NoController => {
                "they have no controllers that would create the pods again. Delete the pods, or use --force".to_owned()
            }
            Outcome::SamePool => format!(
                "their replacements would select AddressPool {pool} again and get no addresses. Change the annotation bobbin.dev/pool of the workloads or of the namespaces first, or use --force"
            ),
        };
        format!("are not evicted: {kept}")
    }
}

/// One line for each outcome of these pods.
pub(super) fn lines(outcomes: impl IntoIterator<Item = (String, Outcome)>, pool: &str) -> Vec<String> {
    let mut by_outcome: BTreeMap<Outcome, Vec<String>> = BTreeMap::new();
    for (pod, outcome) in outcomes {
        by_outcome.entry(outcome).or_default().push(pod);
    }
    let line = |(outcome, pods): (Outcome, Vec<String>)| match pods.as_slice() {
        [pod] => format!("pod {pod} {}", outcome.of_one(pool)),
        pods => {
            let named = list_names(pods.iter().take(MAX_NAMES), pods.len());
            format!("{} pods {}: {named}", pods.len(), outcome.of_many(pool))
        }
    };
    by_outcome.into_iter().map(|one| escaped(&line(one))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_with_the_same_outcome_share_a_line() {
        let refused = |why: &str| Outcome::Refused(why.to_owned());
        let pods = (0..7).map(|number| (format!("shop/web-{number}"), refused("budget web\u{1b}")));
        let others = [
            ("shop/a".to_owned(), Outcome::NoController),
            ("shop/b".to_owned(), Outcome::Evicted),
            ("shop/c".to_owned(), refused("budget db")),
        ];
        assert_eq!(
            lines(pods.chain(others), "p"),
            [
                "pod shop/b is evicted",
                "pod shop/a is not evicted: it has no controller that would create the pod again. Delete the pod, or use --force",
                "pod shop/c is not evicted yet: budget db",
                "7 pods are not evicted yet: budget web\\u{1b}: shop/web-0, shop/web-1, shop/web-2, shop/web-3, shop/web-4 and 2 more",
            ]
        );
        assert!(lines([], "p").is_empty());
    }

    #[test]
    fn only_a_refused_eviction_is_repeated_and_each_outcome_has_a_text_for_one_and_for_many() {
        let all = [
            Outcome::Evicted,
            Outcome::Ending,
            Outcome::Gone,
            Outcome::StaticPod,
            Outcome::SeveralBudgets,
            Outcome::UidUnknown,
            Outcome::NoController,
            Outcome::SamePool,
        ];
        for outcome in all {
            assert!(outcome.is_final() && outcome.of_one("p") != outcome.of_many("p"), "{outcome:?}");
        }
        assert!(!Outcome::Refused(String::new()).is_final());
        assert!(Outcome::SamePool.of_many("p").contains("AddressPool p again"));
    }
}
