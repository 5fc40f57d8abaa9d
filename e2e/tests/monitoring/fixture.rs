//! One node whose agent and operator serve metrics, and functions that wait for values of metrics.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::ports::free_port;
use bobbin_e2e::single_node::{self, Sandbox, SingleNode, SingleNodeOptions};
use bobbin_e2e::suite::{Fixture, Suite};
use bobbin_e2e::wait::{Poll, check, wait_until};
use serde_json::{Value, json};

use crate::scrape::{self, Scrape, Target};

/// The address of the agent's metrics, inside the node.
pub const AGENT_ADDRESS: &str = "127.0.0.1:9119";
/// The agent's target.
pub const AGENT: Target = Target { job: "bobbin-system/bobbin-agent", instance: "n1:9119" };
/// The operator's target.
pub const OPERATOR: Target = Target { job: "bobbin-system/bobbin-operator", instance: "n1:9118" };
/// How long a metric may take to show what happened. Twice the interval of the agent's regular check of its CNI files.
pub const METRIC_TIMEOUT: Duration = Duration::from_mins(1);
/// How long one test may take.
const TEST_TIMEOUT: Duration = Duration::from_mins(3);

/// The node with its programs.
pub struct Monitored {
    pub node: SingleNode,
    /// The address of the operator's metrics, outside of the node.
    pub operator_address: SocketAddr,
}

impl Fixture for Monitored {
    fn before_test(&mut self) -> Result<()> {
        self.node.proxy.set(NetworkFault::None);
        Ok(())
    }
}

/// Creates the suite whose tests share one node.
pub fn suite() -> Result<Suite<Monitored>> {
    single_node::own_mounts()?;
    Ok(Suite::new(Monitored::start)?.with_timeout(TEST_TIMEOUT))
}

impl Monitored {
    async fn start() -> Result<Self> {
        let operator_address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let agent = [&format!("--metrics-address={AGENT_ADDRESS}"), "--stale-check-interval=500ms"];
        let mut options = SingleNodeOptions::with_agent_flags(agent);
        options.operator =
            vec![format!("--metrics-address={operator_address}"), "--pod-comparison-interval=1s".to_owned()];
        let this = Self { node: SingleNode::ready(options).await?, operator_address };
        this.await_calm().await?;
        Ok(this)
    }

    /// Waits until the operator has compared assignments with pods, and the agent has made a resync.
    pub async fn await_calm(&self) -> Result<()> {
        let held = "bobbin_operator_held_not_used_addresses";
        self.await_metric(held, &["pool=\"default\"", "ipv4"], |value| value < 1.0).await?;
        self.await_metric("bobbin_agent_resync_timestamp_seconds", &[], |value| value > 0.0).await?;
        self.await_metric("bobbin_agent_unconfirmed_assignments", &[], |value| value < 1.0).await?;
        Ok(())
    }

    /// Scrapes the agent and the operator. A program that is not running has no series.
    pub fn scrape(&self) -> Result<Scrape> {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        let mut scrape = Scrape { at, ..Scrape::default() };
        if let Ok(page) = scrape::get(Some(&self.node.namespace), AGENT_ADDRESS.parse()?, "/metrics") {
            scrape.add(AGENT, &page)?;
        }
        if let Ok(page) = scrape::get(None, self.operator_address, "/metrics") {
            scrape.add(OPERATOR, &page)?;
        }
        Ok(scrape)
    }

    /// Waits until the value of a metric satisfies `is`, and returns the scrape that contains this value.
    pub async fn await_metric(&self, name: &str, labels: &[&str], is: impl Fn(f64) -> bool) -> Result<Scrape> {
        let condition = format!("the metric {name}{labels:?} has the expected value");
        wait_until(&condition, METRIC_TIMEOUT, || async {
            let scrape = self.scrape()?;
            let value = scrape.value(name, labels);
            Ok(if value.is_some_and(&is) { Poll::Ready(scrape) } else { Poll::Pending(format!("{value:?}")) })
        })
        .await
        .with_context(|| format!("the end of the agent's log:\n{}", self.node.agent_log_tail()))
    }

    /// Creates a pod of a pool with its Pod object, calls ADD, and waits for the assignment. The status of the Pod object
    /// gets the pod's addresses.
    pub async fn running_pod(&self, name: &str, pool: Option<&str>) -> Result<(Sandbox, Vec<String>)> {
        let pod = self.node.kube_pod("default", name, pool).await?;
        let addresses = addresses(&self.node.add(&pod)?);
        let first = addresses.first().context("the result of ADD has no address")?;
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"status": {"phase": "Running", "podIP": first, "podIPs": ips}});
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(self.node.client.clone(), "default");
        pods.patch_status(name, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(status)).await?;
        wait_until("the pod has an assignment", METRIC_TIMEOUT, || async {
            let all = self.node.assignments().await?;
            Ok(check(all.iter().any(|one| one.spec.container_id == pod.container_id), || format!("{}", all.len())))
        })
        .await?;
        Ok((pod, addresses))
    }

    /// Deletes a pod, its Pod object and its attachment.
    pub async fn end_pod(&self, name: &str, pod: Sandbox) -> Result<()> {
        self.node.delete_kube_pod("default", name).await?;
        self.node.remove_pods(vec![pod]).await?;
        self.await_calm().await
    }
}

/// The addresses in the result of an ADD, without prefix lengths.
pub fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next().map(str::to_owned)).collect()
}

/// Checks that a program has succeeded. The error contains the output of the program.
pub fn succeeded(what: &str, output: &std::process::Output) -> Result<()> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{what} failed:\n{out}{err}");
    Ok(())
}
