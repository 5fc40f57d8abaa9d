//! The problems of the installation that an administrator should know. Decides when to report each problem. Pure.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bobbin_cni_wire::Version;
use bobbin_messages::Event;
use bobbin_messages::event::agent as event;
use tokio::time::Instant;

use super::{CONFLIST, InstallError};

/// How often the agent reports a lasting problem again. Kubernetes deletes events after an hour.
const REPEAT_INTERVAL: Duration = Duration::from_hours(1);

/// A problem of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InstallProblem {
    /// The event that reports the problem.
    pub event: &'static Event,
    /// The message in the log and in the event.
    pub sentence: String,
}

impl InstallProblem {
    /// Whether the agent could not install a file.
    pub(super) fn is_failure(&self) -> bool {
        self.event.reason == event::INSTALL_FAILED.reason
    }

    pub(super) fn install_failed(error: &InstallError) -> InstallProblem {
        InstallProblem { event: &event::INSTALL_FAILED, sentence: error.to_string() }
    }

    pub(super) fn shadowed_by(file: &Path, node: &str) -> InstallProblem {
        let sentence = format!(
            "the CNI configuration {} sorts before {CONFLIST}, so the runtime of node {node} uses this file instead of Bobbin's. If Bobbin should assign addresses to this node's pods, remove the file on the node",
            file.display()
        );
        InstallProblem { event: &event::CNI_CONFIG_SHADOWED, sentence }
    }

    /// The problem that an invalid configuration sorts before Bobbin's. Containerd then starts no pod. Other runtimes may ignore the file.
    pub(super) fn invalid_before_ours(file: &Path, node: &str) -> InstallProblem {
        let sentence = format!(
            "the CNI configuration {} sorts before {CONFLIST}, and can't be read as JSON, so new pods may fail to start on node {node}. Correct or remove the file on the node",
            file.display()
        );
        InstallProblem { event: &event::CNI_CONFIG_SHADOWED, sentence }
    }

    pub(super) fn version_lowered(wanted: &str, written: Version) -> Option<InstallProblem> {
        let lower = Version::parse(wanted).is_some_and(|wanted| wanted > written);
        lower.then(|| InstallProblem {
            event: &event::CNI_VERSION_LOWERED,
            sentence: format!(
                "a chained CNI plugin does not support CNI version {wanted}, so Bobbin's CNI configuration uses version {used} instead. To use {wanted}, upgrade the plugin. To keep {used} without this message, set the chart value cni.version={used}",
                used = written.text(),
            ),
        })
    }

    pub(super) fn versions_unknown(plugin: &Path, why: &str) -> InstallProblem {
        let sentence = format!(
            "the chained CNI plugin {} does not report its supported CNI versions ({why}). The agent assumes that the plugin supports only the oldest CNI version. Check that the plugin is installed",
            plugin.display()
        );
        InstallProblem { event: &event::CHAINED_PLUGIN_UNKNOWN, sentence }
    }
}

/// The installation problems that the agent reported, each with the time of its last report.
#[derive(Debug, Default)]
pub(super) struct ReportedProblems(HashMap<InstallProblem, Instant>);

/// The problems that the agent must report after a pass, and the problems that have ended since the previous pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProblemChanges {
    /// New problems, and lasting problems that the agent must report again.
    pub to_report: Vec<InstallProblem>,
    /// Problems that are gone.
    pub resolved: Vec<InstallProblem>,
}

impl ReportedProblems {
    /// Compares the current problems with the reported problems.
    pub(super) fn changes(&mut self, problems: &[InstallProblem], now: Instant) -> ProblemChanges {
        let mut changes = ProblemChanges::default();
        self.0.retain(|problem, _| {
            let stays = problems.contains(problem);
            if !stays {
                changes.resolved.push(problem.clone());
            }
            stays
        });
        for problem in problems {
            let reported = self.0.get(problem);
            if reported.is_none_or(|reported| now.duration_since(*reported) >= REPEAT_INTERVAL) {
                self.0.insert(problem.clone(), now);
                changes.to_report.push(problem.clone());
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_when_it_begins_each_hour_and_when_it_is_over() {
        let mut reported = ReportedProblems::default();
        let now = Instant::now();
        let problems = [InstallProblem { event: &event::INSTALL_FAILED, sentence: "no".to_owned() }];
        let to_report = ProblemChanges { to_report: problems.to_vec(), resolved: Vec::new() };
        assert_eq!(reported.changes(&problems, now), to_report);
        assert_eq!(reported.changes(&problems, now + Duration::from_mins(59)), ProblemChanges::default());
        assert_eq!(reported.changes(&problems, now + REPEAT_INTERVAL), to_report);
        let later = now + REPEAT_INTERVAL + Duration::from_mins(1);
        assert_eq!(reported.changes(&problems, later), ProblemChanges::default());
        assert_eq!(reported.changes(&[], later), ProblemChanges { to_report: Vec::new(), resolved: problems.to_vec() });
        assert_eq!(reported.changes(&problems, later), to_report);
    }
}
