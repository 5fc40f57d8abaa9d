//! `check`: compares the API objects with the agents' views, and says what is wrong.
//!
//! The check reads the objects and the views one after the other, so an ADD or a DEL in between looks like a difference. A difference
//! counts only if a second observation, a few seconds later, shows the same difference.

mod compare;
mod finding;
mod observation;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Result, ensure};
use comfy_table::Cell;
use jiff::Timestamp;
use kube::Client;
use serde::Serialize;

use crate::Answer;
use crate::args::GlobalArgs;
use crate::print::age::age;
use crate::print::count::counted;
use crate::print::output::{Output, Report, escaped, table, verdict};
use finding::{Finding, Severity, confirmed, is_wrong};
use observation::Observation;

/// The time between the two observations. After an ADD or a DEL, agent and API server agree within this time.
const BETWEEN_OBSERVATIONS: Duration = Duration::from_secs(5);

/// Prints the findings. Returns [`Answer::No`] if somebody needs to act.
pub(crate) async fn run(client: &Client, args: &GlobalArgs, names: &[String], output: Output) -> Result<Answer> {
    let scope: BTreeSet<String> = names.iter().cloned().collect();
    let first = Observation::take(client, args, &scope).await?;
    for name in &scope {
        ensure!(
            first.knows(name),
            "Node {name} does not exist and owns nothing; list all nodes with: kubectl bobbin nodes"
        );
    }
    let mut findings = compare::compare(&first, &scope);
    let mut nodes = first.view_count();
    // Findings of the severity `info` need no second observation, because an ADD or a DEL does not change them.
    if is_wrong(&findings) {
        say_waiting(findings.len());
        tokio::time::sleep(BETWEEN_OBSERVATIONS).await;
        let second = Observation::take(client, args, &scope).await?;
        nodes = second.view_count();
        findings = confirmed(&findings, compare::compare(&second, &scope));
    }
    let answer = if is_wrong(&findings) { Answer::No } else { Answer::Yes };
    output.print(&Checked { nodes, findings })?;
    Ok(answer)
}

/// Tells a person at a terminal why the answer takes longer.
fn say_waiting(findings: usize) {
    if std::io::stderr().is_terminal() {
        let (found, wait) = (counted(findings, "finding"), BETWEEN_OBSERVATIONS.as_secs());
        anstream::eprintln!(
            "The first comparison has {found}. The command compares again in {wait} s, and reports what both comparisons show."
        );
    }
}

#[derive(Debug, Serialize)]
struct Checked {
    /// How many agents answered.
    nodes: usize,
    findings: Vec<Finding>,
}

impl Report for Checked {
    fn text(&self, wide: bool) -> String {
        let views = format!("{} answered", counted(self.nodes, "agent"));
        if self.findings.is_empty() {
            return format!("nothing is wrong; {views}");
        }
        let now = Timestamp::now();
        let mut rows = table(["severity", "object", "since", "what is wrong"]);
        for one in &self.findings {
            let since = one.since.map_or_else(|| "-".to_owned(), |since| age(since, now));
            let severity = match one.severity {
                Severity::Info => Cell::new(one.severity),
                Severity::Error | Severity::Warning => verdict(one.severity, one.severity == Severity::Warning),
            };
            rows.add_row(vec![severity, escaped(&one.object).into(), since.into(), escaped(&one.what).into()]);
        }
        let mut parts = vec![rows.trim_fmt()];
        let mut told = BTreeSet::new();
        for one in &self.findings {
            // Many findings of one kind have the same advice.
            if told.insert((&one.bobbin, &one.you)) || wide {
                let same = |other: &&Finding| (&other.bobbin, &other.you) == (&one.bobbin, &one.you);
                let others = if wide { 0 } else { self.findings.iter().filter(same).count() - 1 };
                let others =
                    if others == 0 { String::new() } else { format!(" and {others} more with the same advice") };
                let [object, bobbin, you] = [&one.object, &one.bobbin, &one.you].map(|text| escaped(text));
                parts.push(format!("{object}{others}\n  Bobbin: {bobbin}\n  you: {you}"));
            }
        }
        let note = if is_wrong(&self.findings) { "" } else { ", and none of them needs action" };
        parts.push(format!("{}{note}; {views}", counted(self.findings.len(), "finding")));
        parts.join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use finding::Kind;

    fn finding(severity: Severity) -> Finding {
        Finding {
            severity,
            kind: Kind::BobbinBeingRemoved,
            object: "Node n1\u{1b}".to_owned(),
            what: "w\u{1b}".to_owned(),
            since: None,
            bobbin: "b".to_owned(),
            you: "y".to_owned(),
            identity: String::new(),
        }
    }

    #[test]
    fn findings_for_information_are_shown_and_nothing_is_wrong() {
        let text = |severities: &[Severity]| {
            let findings = severities.iter().map(|severity| finding(*severity)).collect();
            Checked { nodes: 3, findings }.text(false)
        };
        let info = text(&[Severity::Info]);
        assert!(
            info.contains("info") && info.ends_with("1 finding, and none of them needs action; 3 agents answered"),
            "{info}"
        );
        assert!(!info.contains('\u{1b}'), "{info}");
        let both = text(&[Severity::Warning, Severity::Info]);
        assert!(both.ends_with("2 findings; 3 agents answered"), "{both}");
        assert!(both.contains(" and 1 more with the same advice"), "{both}");
        assert!(text(&[]).starts_with("nothing is wrong"));
        assert!(text(&[Severity::Error]).ends_with("1 finding; 3 agents answered"));
    }
}
