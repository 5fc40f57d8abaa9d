//! Every query of the Grafana dashboard gives data from a real Prometheus.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::chart;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::fixture::Monitored;
use crate::prometheus::Prometheus;

/// How long Prometheus may take until every query gives data.
const DATA_TIMEOUT: Duration = Duration::from_secs(90);
/// The values of the dashboard's variables in the test.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "2m"), ("$pool", ".*")];

pub fn tests(suite: &Suite<Monitored>) -> Vec<Trial> {
    vec![suite.test("every query of the dashboard gives data from Prometheus, and all alert rules are evaluated", data)]
}

/// The dashboard of the chart.
pub fn file() -> Result<Value> {
    let path = chart::directory().join("dashboards/bobbin.json");
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

async fn data(monitored: &mut Monitored) -> Result<()> {
    let mut missing = queries(&file()?)?;
    // The first ADD after a start of the agent waits for the confirmation of its assignment. Restart the agent, and
    // start Prometheus before this ADD, so that Prometheus records the wait.
    monitored.node.kill_agent();
    monitored.node.start_agent_only()?;
    let prometheus = Prometheus::start(monitored).await?;
    let spec = json!({"subnets": [{"ipv4": "10.71.0.0/24"}]});
    monitored.node.apply_pool("dashboard", spec).await?;
    monitored.node.await_free_blocks("dashboard").await?;
    // The first pod needs a claim. Each check makes further CNI calls, so that rates have data.
    let pod = monitored.node.kube_pod("default", "dashboard", Some("dashboard")).await?;
    monitored.node.add(&pod)?;
    let missing = std::cell::RefCell::new(&mut missing);
    wait_until("every query of the dashboard gives data", DATA_TIMEOUT, || async {
        let pod = monitored.node.sandbox()?;
        monitored.node.add(&pod)?;
        monitored.node.del(&pod)?;
        let mut missing = missing.borrow_mut();
        let mut errors = Vec::new();
        missing.retain(|(_, expression)| match prometheus.query(expression) {
            Ok(values) => values.iter().all(|value| value.is_nan()),
            Err(error) => {
                errors.push(format!("{error:#}"));
                true
            }
        });
        Ok(check(missing.is_empty(), || format!("no data: {missing:#?}; errors: {errors:#?}")))
    })
    .await?;
    wait_until("Prometheus has evaluated every alert rule", DATA_TIMEOUT, || async {
        let unhealthy = prometheus.unhealthy_rules()?;
        Ok(check(unhealthy.is_empty(), || format!("{unhealthy:#?}")))
    })
    .await
}

/// The titles of the panels and their expressions, with values in place of variables.
fn queries(dashboard: &Value) -> Result<Vec<(String, String)>> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("the dashboard has no panels")? {
        let title = panel["title"].as_str().context("a panel has no title")?;
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(panel["type"] == "row" || !targets.is_empty(), "the panel {title:?} has no query");
        for target in targets {
            let expression = target["expr"].as_str().with_context(|| format!("a query of {title:?} is empty"))?;
            let replace = |text: String, (name, value): &(&str, &str)| text.replace(name, value);
            let expression = VARIABLES.iter().fold(expression.to_owned(), replace);
            ensure!(!expression.contains('$'), "the test has no value for a variable in {expression:?}");
            queries.push((title.to_owned(), expression));
        }
    }
    Ok(queries)
}
