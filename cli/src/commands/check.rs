//! `check`: compares the API objects with the agents' views, and says what is wrong.
//!
//! The views are taken at different times. So a difference counts only if a second observation, a few seconds later, shows it again.

mod compare;
mod finding;
mod observation;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use kube::Client;
use serde::Serialize;

use crate::Answer;
use crate::args::GlobalArgs;
use crate::print::age::age;
use crate::print::output::{Output, Report, escaped, table, verdict};
use finding::{Finding, Severity, confirmed};
use observation::Observation;

/// The time between the two observations. After an ADD or a DEL, agent and API server agree within this time.
const BETWEEN_OBSERVATIONS: Duration = Duration::from_secs(5);

/// Prints the findings. The answer is no if there are any.
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
    if !findings.is_empty() {
        tokio::time::sleep(BETWEEN_OBSERVATIONS).await;
        let second = Observation::take(client, args, &scope).await?;
        nodes = second.view_count();
        findings = confirmed(&findings, compare::compare(&second, &scope));
    }
    let found = !findings.is_empty();
    output.print(&Checked { nodes, findings })?;
    Ok(if found { Answer::No } else { Answer::Yes })
}

#[derive(Debug, Serialize)]
struct Checked {
    /// How many agents answered.
    nodes: usize,
    findings: Vec<Finding>,
}

impl Report for Checked {
    fn text(&self, wide: bool) -> String {
        let views = format!("{} agents answered", self.nodes);
        if self.findings.is_empty() {
            return format!("nothing is wrong; {views}");
        }
        let now = Timestamp::now();
        let mut rows = table(["severity", "object", "since", "what is wrong"]);
        for one in &self.findings {
            let since = one.since.map_or_else(|| "-".to_owned(), |since| age(since, now));
            let severity = verdict(one.severity, one.severity == Severity::Warning);
            rows.add_row(vec![severity, escaped(&one.object).into(), since.into(), escaped(&one.what).into()]);
        }
        let mut parts = vec![rows.trim_fmt()];
        let mut told = BTreeSet::new();
        for one in &self.findings {
            // Many findings of one kind have the same advice.
            if told.insert((&one.bobbin, &one.you)) || wide {
                let [object, bobbin, you] = [&one.object, &one.bobbin, &one.you].map(|text| escaped(text));
                parts.push(format!("{object}\n  Bobbin: {bobbin}\n  you: {you}"));
            }
        }
        parts.push(format!("{} findings; {views}", self.findings.len()));
        parts.join("\n\n")
    }
}
