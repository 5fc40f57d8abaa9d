//! Compares the metrics of a running agent and a running operator with the list in docs/reference/metrics.md. Also compares
//! some numbers with the state of the node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::ports;
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::metrics_endpoint;

/// The metrics that the operator exposes only after its first two comparisons of assignments with pods.
const LATE: [&str; 2] = ["bobbin_operator_held_not_used_addresses", "bobbin_operator_used_not_held_addresses"];

/// A metric that docs/reference/metrics.md lists: its type, and the values of each label. If the document only
/// describes the values of a label, the set of this label's values is empty.
#[derive(Debug)]
struct Listed {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics that docs/reference/metrics.md lists in the sections whose headings begin with one of `sections`.
fn listed(sections: &[&str]) -> Result<BTreeMap<String, Listed>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics.md");
    let page = std::fs::read_to_string(path)?;
    let mut metrics = BTreeMap::new();
    for section in page.split("\n## ").filter(|section| sections.iter().any(|name| section.starts_with(name))) {
        for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (name, rest) = row.split_once("` | ").context("a row has no type")?;
            let [kind, labels] = rest.splitn(3, " | ").take(2).collect::<Vec<_>>()[..] else {
                anyhow::bail!("the row of {name} is too short");
            };
            let labels = labels.split(". ").filter_map(|label| label.trim().strip_prefix('`')?.split_once("`: "));
            let values = |text: &str| match text.strip_prefix('`') {
                Some(text) => text.trim_end_matches('`').split("`, `").map(str::to_owned).collect(),
                None => BTreeSet::new(),
            };
            let labels = labels.map(|(label, text)| (label.to_owned(), values(text))).collect();
            metrics.insert(name.to_owned(), Listed { kind: kind.to_owned(), labels });
        }
    }
    ensure!(metrics.len() > 10, "docs/reference/metrics.md lists only {} metrics in {sections:?}", metrics.len());
    Ok(metrics)
}

/// Checks that the exposed metrics are those of the documents, with the same types, labels and values.
fn must_match(text: &str, listed: &BTreeMap<String, Listed>) -> Result<()> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let name = |name: &str, kind: &str| if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
    let exposed: BTreeMap<String, &str> = types.map(|(base, kind)| (name(base, kind), kind)).collect();
    let is_due = |name: &str| exposed.contains_key(name) || !LATE.contains(&name);
    let due = listed.iter().filter(|(name, _)| is_due(name));
    let wanted: BTreeMap<String, &str> = due.map(|(name, metric)| (name.clone(), metric.kind.as_str())).collect();
    ensure!(exposed == wanted, "the program exposes {exposed:?}, but the documents list {wanted:?}");
    let mut with_series = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').context("a line without a value")?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let metric = listed.get(base).or_else(|| listed.get(name)).with_context(|| format!("{name} is not listed"))?;
        with_series.insert(if listed.contains_key(name) { name } else { base }.to_owned());
        for pair in labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').context("a label without a value")?;
            let known =
                metric.labels.get(label).filter(|values| values.is_empty() || values.contains(value.trim_matches('"')));
            ensure!(known.is_some() || label == "le", "the documents do not list the label {pair} of {name}");
        }
    }
    let missing: Vec<_> = wanted.keys().filter(|name| !with_series.contains(*name)).collect();
    ensure!(missing.is_empty(), "these metrics have no series: {missing:?}");
    Ok(())
}

pub async fn are_listed(node: &mut SingleNode) -> Result<()> {
    let port = ports::free_port()?;
    node.restart_operator(&[&format!("--metrics-address=127.0.0.1:{port}")])?;
    node.kill_agent();
    node.start_agent().await?;
    let of_agent = listed(&["The agent", "The process"])?;
    wait_until("the agent exposes what the documents list", WAIT_TIMEOUT, || async {
        let (_, text) = metrics_endpoint::get(node, "/metrics")?;
        let compared = must_match(&text, &of_agent);
        Ok(check(compared.is_ok(), || format!("{compared:?}")))
    })
    .await?;
    let of_operator = listed(&["The operator", "The process"])?;
    wait_until("the operator exposes what the documents list", CONVERGENCE_TIMEOUT, || async {
        let compared = metrics_endpoint::get_from(&format!("127.0.0.1:{port}"), "/metrics")
            .and_then(|(_, text)| must_match(&text, &of_operator));
        Ok(check(compared.is_ok(), || format!("{compared:?}")))
    })
    .await?;
    node.restart_operator(&[])
}

/// The values of the series that begin with `prefix`, added up.
fn sum(node: &SingleNode, prefix: &str) -> Result<f64> {
    let (_, text) = metrics_endpoint::get(node, "/metrics")?;
    let values = text.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| Ok(value.parse::<f64>()?)).sum()
}

/// Waits until the series that begin with `prefix` have this sum.
async fn await_sum(node: &SingleNode, prefix: &str, wanted: f64) -> Result<()> {
    wait_until(&format!("{prefix} is {wanted}"), CONVERGENCE_TIMEOUT, || async {
        let is = sum(node, prefix)?;
        Ok(check((is - wanted).abs() < 0.5, || format!("{prefix} is {is}, not {wanted}")))
    })
    .await
}

pub async fn agree_with_the_state(node: &mut SingleNode) -> Result<()> {
    let added = "bobbin_agent_cni_calls_total{verb=\"ADD\",code=\"0\",pool=\"default\"}";
    let assigned = "bobbin_agent_addresses{pool=\"default\",family=\"ipv4\",state=\"assigned\"}";
    node.await_empty().await?;
    let (adds, held) = (sum(node, added)?, sum(node, assigned)?);
    let pod = node.sandbox()?;
    node.add(&pod)?;
    await_sum(node, added, adds + 1.0).await?;
    await_sum(node, assigned, held + 1.0).await?;
    await_sum(
        node,
        "bobbin_agent_blocks{pool=\"default\",state=\"serving\"}",
        node.own_blocks("default").await?.len() as f64,
    )
    .await?;
    // A pod can name any pool, so the name of a pool that does not exist must not become a label.
    let lost = node.kube_pod("default", "no-pool", Some("no-such-pool")).await?;
    let failed = "bobbin_agent_cni_calls_total{verb=\"ADD\",code=\"102\",pool=\"\"}";
    let failures = sum(node, failed)?;
    let error = node.call(&lost.call("ADD"))?.error()?;
    ensure!(error.code == 102, "an ADD for a pool that does not exist has another code: {error:?}");
    await_sum(node, failed, failures + 1.0).await?;
    ensure!(
        !metrics_endpoint::get(node, "/metrics")?.1.contains("no-such-pool"),
        "a pool that does not exist is a label"
    );
    let during_outage = unconfirmed_during_outage(node).await?;
    let deleted = "bobbin_agent_cni_calls_total{verb=\"DEL\",code=\"0\",pool=\"default\"}";
    let dels = sum(node, deleted)?;
    node.del(&pod)?;
    await_sum(node, deleted, dels + 1.0).await?;
    node.remove_pods(vec![lost, during_outage]).await?;
    node.delete_kube_pod("default", "no-pool").await
}

/// While the API server is unreachable, the agent counts unconfirmed assignments, requests without an answer, and the
/// silence of its watches. Returns the pod that was added during the outage.
async fn unconfirmed_during_outage(node: &SingleNode) -> Result<Sandbox> {
    let count = "bobbin_agent_unconfirmed_assignments ";
    let age = "bobbin_agent_oldest_unconfirmed_assignment_age_seconds ";
    let unanswered = "bobbin_agent_api_requests_total{verb=\"create\",code=\"none\"}";
    await_sum(node, count, 0.0).await?;
    let before = sum(node, unanswered)?;
    node.proxy.set(NetworkFault::Refuse);
    let pod = node.sandbox()?;
    node.add(&pod)?;
    await_sum(node, count, 1.0).await?;
    for (what, least) in
        [(age, 2.0), ("bobbin_agent_watch_age_seconds{kind=\"AddressPool\"}", 2.0), (unanswered, before + 1.0)]
    {
        wait_until(&format!("{what} grows"), WAIT_TIMEOUT, || async {
            let is = sum(node, what)?;
            Ok(check(is >= least, || format!("{what} is {is}")))
        })
        .await?;
    }
    node.proxy.set(NetworkFault::None);
    await_sum(node, count, 0.0).await?;
    await_sum(node, age, 0.0).await?;
    Ok(pod)
}
