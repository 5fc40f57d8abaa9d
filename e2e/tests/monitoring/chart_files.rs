//! The files of alerts, runbooks and the dashboard agree with each other, and the chart contains them. These tests need no
//! cluster.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::chart;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use xtask::programs::Programs;

use crate::fixture::succeeded;
use crate::recording::rules;

/// The headings of a runbook page, in their order.
const HEADINGS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Remedy"];
/// The source code of the alert tests. Each test names its expected alerts.
const TESTS: [&str; 4] = [
    include_str!("attachments.rs"),
    include_str!("outages.rs"),
    include_str!("pod_comparison.rs"),
    include_str!("pools.rs"),
];

pub fn tests() -> Vec<Trial> {
    let test = |sentence: &str, run: fn() -> Result<()>| {
        Trial::test(sentence, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    vec![
        test("promtool finds no fault in the alert rules", valid_rules),
        test("each alert has a runbook page and a test, and each runbook page has an alert", runbooks),
        test("the chart contains the alert rules and the dashboard only if they are enabled", chart_options),
    ]
}

fn valid_rules() -> Result<()> {
    let output = Command::new(Programs::find()?.path("promtool")?)
        .args(["check", "rules", "--lint=all", "--lint-fatal"])
        .arg(rules())
        .output()?;
    succeeded("the check of the alert rules", &output)
}

fn runbooks() -> Result<()> {
    let text = std::fs::read_to_string(rules())?;
    let after = |prefix: &'static str| text.lines().filter_map(move |line| line.trim().strip_prefix(prefix));
    let alerts: BTreeSet<String> = after("- alert: ").map(str::to_owned).collect();
    let links: Vec<&str> = after("runbook_url: ").collect();
    ensure!(links.len() == alerts.len(), "{} alerts have {} links to runbooks", alerts.len(), links.len());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let mut pages = BTreeSet::new();
    for entry in std::fs::read_dir(&directory)? {
        let path = entry?.path();
        let name = path.file_stem().context("a runbook has no name")?.to_string_lossy().into_owned();
        let page = std::fs::read_to_string(&path)?;
        let title = format!("# {name}");
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let expected = [&[title.as_str()], &HEADINGS[..]].concat();
        ensure!(headings == expected, "{} has the headings {headings:?}, not {expected:?}", path.display());
        pages.insert(name);
    }
    ensure!(pages == alerts, "the runbook pages are {pages:?}, but the alerts are {alerts:?}");
    for alert in &alerts {
        let end = format!("/docs/runbooks/{alert}.md");
        ensure!(links.iter().any(|link| link.ends_with(&end)), "no runbook_url ends with {end}");
        let quoted = format!("\"{alert}\"");
        ensure!(TESTS.iter().any(|test| test.contains(&quoted)), "no test makes the cause of {alert}");
    }
    Ok(())
}

fn chart_options() -> Result<()> {
    let rendered = |settings: &[&str]| -> Result<String> {
        let mut helm = chart::template("bobbin-system")?;
        for setting in settings {
            helm.args(["--set", setting]);
        }
        let output = helm.output()?;
        succeeded("helm template", &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let off = rendered(&[])?;
    ensure!(!off.contains("PrometheusRule") && !off.contains("grafana_dashboard"), "the options are on by default");
    let rule = rendered(&["metrics.prometheusRule.enabled=true", "metrics.prometheusRule.labels.release=example"])?;
    let document = document(&rule, "kind: PrometheusRule")?;
    ensure!(document.contains("    release: example\n"), "the PrometheusRule lacks the label: {document}");
    let (_, spec) = document.split_once("\nspec:\n").context("the PrometheusRule has no spec")?;
    ensure!(dedented(spec, 2) == std::fs::read_to_string(rules())?.trim_end(), "the rules differ:\n{spec}");
    let config = rendered(&["metrics.grafanaDashboard.enabled=true"])?;
    let document = self::document(&config, "grafana_dashboard: \"1\"")?;
    let (_, json) = document.split_once("\n  bobbin.json: |\n").context("the ConfigMap has no dashboard")?;
    let dashboard: Value = serde_json::from_str(&dedented(json, 4))?;
    ensure!(dashboard == crate::dashboard::file()?, "the dashboard in the ConfigMap differs from the file");
    Ok(())
}

/// The document of a rendered chart that contains a text.
fn document<'a>(rendered: &'a str, text: &str) -> Result<&'a str> {
    let mut documents = rendered.split("\n---\n");
    documents.find(|one| one.contains(text)).with_context(|| format!("the chart has no document with {text:?}"))
}

/// The lines without their first `count` spaces.
fn dedented(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.get(count..).unwrap_or_default()).collect();
    lines.join("\n").trim_end().to_owned()
}
