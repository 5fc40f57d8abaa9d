//! What an administrator should know about the installation, as sentences; and which of them are news. Pure.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bobbin_cni_wire::Version;
use tokio::time::Instant;

use super::{CONFLIST, InstallError};

/// A problem that lasts is told again so often: Kubernetes forgets events after an hour.
const RENEWAL_INTERVAL: Duration = Duration::from_hours(1);

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    /// The event's reason.
    pub reason: &'static str,
    /// The sentence of log and event.
    pub sentence: String,
}

impl Problem {
    pub(super) fn not_installed(error: &InstallError) -> Problem {
        Problem { reason: "InstallFailed", sentence: error.to_string() }
    }

    pub(super) fn competitor(file: &Path, node: &str) -> Problem {
        let sentence = format!(
            "CNI configuration {} sorts before {CONFLIST}, so the runtime of node {node} uses it instead of Bobbin; remove it if Bobbin is to give the pods their addresses",
            file.display()
        );
        Problem { reason: "CNIConfigShadowed", sentence }
    }

    pub(super) fn lowered(wanted: &str, written: Version) -> Option<Problem> {
        let lower = Version::parse(wanted).is_some_and(|wanted| wanted > written);
        lower.then(|| Problem {
            reason: "OlderVersion",
            sentence: format!(
                "a chained CNI plugin does not support CNI version {wanted}, so the configuration names {}; upgrade the plugin, or set the version (--cni-version) to {}",
                written.text(),
                written.text()
            ),
        })
    }

    pub(super) fn no_versions(plugin: &Path, why: &str) -> Problem {
        let sentence = format!(
            "the chained CNI plugin {} does not say which CNI versions it supports: {why}; the oldest version is assumed; see whether the plugin is installed",
            plugin.display()
        );
        Problem { reason: "ChainedPlugin", sentence }
    }
}

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<Problem, Instant>);

/// What changed since the last pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// New ones, and old ones that have lasted long.
    pub begun: Vec<Problem>,
    /// Those that are over.
    pub over: Vec<Problem>,
}

impl Told {
    /// What is news among the problems that there are now.
    pub(super) fn news(&mut self, problems: &[Problem], now: Instant) -> News {
        let mut news = News::default();
        self.0.retain(|problem, _| {
            let stays = problems.contains(problem);
            if !stays {
                news.over.push(problem.clone());
            }
            stays
        });
        for problem in problems {
            let told = self.0.get(problem);
            if told.is_none_or(|told| now.duration_since(*told) >= RENEWAL_INTERVAL) {
                self.0.insert(problem.clone(), now);
                news.begun.push(problem.clone());
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
        let mut told = Told::default();
        let now = Instant::now();
        let problems = [Problem { reason: "InstallFailed", sentence: "no".to_owned() }];
        let begun = News { begun: problems.to_vec(), over: Vec::new() };
        assert_eq!(told.news(&problems, now), begun);
        assert_eq!(told.news(&problems, now + Duration::from_mins(59)), News::default());
        assert_eq!(told.news(&problems, now + RENEWAL_INTERVAL), begun);
        let later = now + RENEWAL_INTERVAL + Duration::from_mins(1);
        assert_eq!(told.news(&problems, later), News::default());
        assert_eq!(told.news(&[], later), News { begun: Vec::new(), over: problems.to_vec() });
        assert_eq!(told.news(&problems, later), begun);
    }
}
