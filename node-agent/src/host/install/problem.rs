//! What an administrator should know about the installation, as sentences; and which of them are news. Pure.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bobbin_cni_wire::Version;
use tokio::time::Instant;

use super::{CONFLIST, InstallError};

/// A problem that lasts is told again so often: Kubernetes forgets events after an hour.
const REPEAT_INTERVAL: Duration = Duration::from_hours(1);

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InstallProblem {
    /// The event's reason.
    pub reason: &'static str,
    /// The sentence of log and event.
    pub sentence: String,
}

impl InstallProblem {
    pub(super) fn install_failed(error: &InstallError) -> InstallProblem {
        InstallProblem { reason: "InstallFailed", sentence: error.to_string() }
    }

    pub(super) fn shadowed_by(file: &Path, node: &str) -> InstallProblem {
        let sentence = format!(
            "CNI configuration {} sorts before {CONFLIST}, so the runtime of node {node} uses it instead of Bobbin; remove it if Bobbin is to give the pods their addresses",
            file.display()
        );
        InstallProblem { reason: "CNIConfigShadowed", sentence }
    }

    pub(super) fn version_lowered(wanted: &str, written: Version) -> Option<InstallProblem> {
        let lower = Version::parse(wanted).is_some_and(|wanted| wanted > written);
        lower.then(|| InstallProblem {
            reason: "OlderVersion",
            sentence: format!(
                "a chained CNI plugin does not support CNI version {wanted}, so the configuration names {}; upgrade the plugin, or set the version (--cni-version) to {}",
                written.text(),
                written.text()
            ),
        })
    }

    pub(super) fn versions_unknown(plugin: &Path, why: &str) -> InstallProblem {
        let sentence = format!(
            "the chained CNI plugin {} does not say which CNI versions it supports: {why}; the oldest version is assumed; see whether the plugin is installed",
            plugin.display()
        );
        InstallProblem { reason: "ChainedPlugin", sentence }
    }
}

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct ReportedProblems(HashMap<InstallProblem, Instant>);

/// What changed since the last pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProblemChanges {
    /// New ones, and old ones that have lasted long.
    pub to_report: Vec<InstallProblem>,
    /// Those that are over.
    pub resolved: Vec<InstallProblem>,
}

impl ReportedProblems {
    /// What is news among the problems that there are now.
    pub(super) fn changes(&mut self, problems: &[InstallProblem], now: Instant) -> ProblemChanges {
        let mut news = ProblemChanges::default();
        self.0.retain(|problem, _| {
            let stays = problems.contains(problem);
            if !stays {
                news.resolved.push(problem.clone());
            }
            stays
        });
        for problem in problems {
            let told = self.0.get(problem);
            if told.is_none_or(|told| now.duration_since(*told) >= REPEAT_INTERVAL) {
                self.0.insert(problem.clone(), now);
                news.to_report.push(problem.clone());
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_when_it_begins_each_hour_and_when_it_is_over() {
        let mut told = ReportedProblems::default();
        let now = Instant::now();
        let problems = [InstallProblem { reason: "InstallFailed", sentence: "no".to_owned() }];
        let begun = ProblemChanges { to_report: problems.to_vec(), resolved: Vec::new() };
        assert_eq!(told.changes(&problems, now), begun);
        assert_eq!(told.changes(&problems, now + Duration::from_mins(59)), ProblemChanges::default());
        assert_eq!(told.changes(&problems, now + REPEAT_INTERVAL), begun);
        let later = now + REPEAT_INTERVAL + Duration::from_mins(1);
        assert_eq!(told.changes(&problems, later), ProblemChanges::default());
        assert_eq!(told.changes(&[], later), ProblemChanges { to_report: Vec::new(), resolved: problems.to_vec() });
        assert_eq!(told.changes(&problems, later), begun);
    }
}
