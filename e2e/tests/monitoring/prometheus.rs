//! A real Prometheus that scrapes the agent and the operator of the node every second.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::network::{Namespace, TcpProxy};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::{Value, json};
use xtask::programs::Programs;

use crate::fixture::{AGENT, AGENT_ADDRESS, Monitored, OPERATOR, succeeded};
use crate::recording::rules;
use crate::scrape;

/// How long Prometheus may take until it has scraped both targets.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// The address of the HTTP API, inside the node.
const ADDRESS: &str = "127.0.0.1:9090";

/// The running Prometheus. Dropping this value ends the program.
pub struct Prometheus {
    process: Process,
    promtool: PathBuf,
    namespace: Namespace,
    _operator: TcpProxy,
}

impl Prometheus {
    /// Starts Prometheus in the node's network namespace, and waits until it has scraped the agent and the operator.
    pub async fn start(monitored: &Monitored) -> Result<Self> {
        let node = &monitored.node;
        let operator = TcpProxy::start(&node.namespace, monitored.operator_address)?;
        let job = |name: &str, address: &str| json!({"job_name": name, "static_configs": [{"targets": [address]}]});
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [rules()],
            "scrape_configs": [job(AGENT.job, AGENT_ADDRESS), job(OPERATOR.job, &operator.address().to_string())],
        });
        // JSON is also YAML.
        let file = node.path("prometheus.yml");
        std::fs::write(&file, config.to_string())?;
        let programs = Programs::find()?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", node.path("prometheus").display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let netns = node.namespace.path();
        let log = node.path("prometheus.log");
        let process = Process::start(&programs.path("prometheus")?, Some(&netns), &log, arguments)?;
        let promtool = programs.path("promtool")?;
        let this = Self { process, promtool, namespace: node.namespace.clone(), _operator: operator };
        wait_until("Prometheus has scraped both targets", START_TIMEOUT, || async {
            let up = this.query("up == 1")?;
            Ok(check(up.len() == 2, || format!("{up:?}; the end of its log:\n{}", this.process.log_tail())))
        })
        .await?;
        Ok(this)
    }

    /// The values of all series that an expression gives now.
    pub fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let server = format!("http://{ADDRESS}");
        let arguments = ["query", "instant", "--format=json", &server, expression];
        let output = self.namespace.command(&self.promtool).args(arguments).output()?;
        succeeded(&format!("the query {expression:?}"), &output)?;
        let series: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        let value = |one: &Value| one.pointer("/value/1")?.as_str()?.parse::<f64>().ok();
        series.iter().map(|one| value(one).with_context(|| format!("no value in {one}"))).collect()
    }

    /// The alert rules that are not healthy. Either Prometheus has not evaluated the rule yet, or the evaluation
    /// failed. After a failure, the text contains the error.
    pub fn unhealthy_rules(&self) -> Result<Vec<String>> {
        let body = scrape::get(Some(&self.namespace), ADDRESS.parse()?, "/api/v1/rules")?;
        let body: Value = serde_json::from_str(&body)?;
        let groups = body.pointer("/data/groups").and_then(Value::as_array).context("Prometheus has no rules")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        Ok(rules.filter(|rule| rule["health"] != "ok").map(Value::to_string).collect())
    }
}
