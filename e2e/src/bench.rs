//! Benchmarks CNI calls. The benchmarks execute the plugins as containerd does. Each round measures Bobbin and the
//! reference plugins.
//!
//! Bobbin runs with a real agent and a real API server. etcd syncs each write to the disk. The reference plugins are
//! `ptp` and `host-local`. Another benchmark lets many nodes claim blocks at one API server.

mod boot;
mod calls;
mod claims;
pub mod compare;
mod foreign_routes;
mod packet;
mod report;
mod restart;
mod rounds;
mod samples;
mod stages;
mod start;
mod stolen_token;
mod thresholds;

use anyhow::{Context, Result, ensure};
use serde_json::json;

pub use report::Report;

use crate::single_node::{Sandbox, SingleNode, SingleNodeOptions};

/// The address at which the agent serves its metrics, inside the node's network namespace.
const METRICS: &str = "127.0.0.1:9116";
/// The pool for IPv4-only pods. The pool `default` has both address families.
const IPV4_POOL: &str = "v4";

/// The numbers of rounds and calls that the benchmark measures.
#[derive(Clone, Copy, Debug)]
struct BenchConfig {
    rounds: usize,
    one_by_one: usize,
    /// The number of dual-stack ADDs of the reference plugins. This number is small, because each of these ADDs waits
    /// about 1.8 s for duplicate address detection.
    one_by_one_reference_dual: usize,
    at_once: usize,
}

impl BenchConfig {
    /// Reads the number of rounds from the environment variable `BENCH_ROUNDS`.
    fn rounds_from_environment(default: usize) -> Result<usize> {
        let rounds = match std::env::var("BENCH_ROUNDS") {
            Ok(text) => text.parse().context("BENCH_ROUNDS must be a whole number of rounds, such as 5")?,
            Err(_) => default,
        };
        ensure!(rounds > 0, "BENCH_ROUNDS must be at least 1");
        Ok(rounds)
    }

    /// The default numbers of calls and rounds. If `BENCH_ROUNDS` is set, it replaces the number of rounds.
    fn from_environment() -> Result<Self> {
        let rounds = Self::rounds_from_environment(5)?;
        Ok(Self { rounds, one_by_one: 40, one_by_one_reference_dual: 3, at_once: 100 })
    }
}

/// Runs all benchmarks.
pub async fn run() -> Result<Report> {
    let config = BenchConfig::from_environment()?;
    let mut report = Report::default();
    eprintln!("bench: starting etcd (with fsync), the API server, the operator and the agent");
    let agent = vec![format!("--metrics-address={METRICS}")];
    let mut node = SingleNode::ready(SingleNodeOptions { fsync: true, agent, ..SingleNodeOptions::default() }).await?;
    node.apply_pool(IPV4_POOL, json!({"subnets": [{"ipv4": "10.65.0.0/16"}]})).await?;

    // Wait for free blocks before measuring. In the first two seconds after a custom resource definition is installed,
    // the API server delays the creation of its custom resources. The measurements must not include this delay.
    for pool in ["default", IPV4_POOL] {
        node.await_free_blocks(pool).await?;
    }
    let pods = pod_objects(&node, config.at_once).await?;
    rounds::measure(&node, config, &pods, &mut report).await?;
    foreign_routes::measure(&node, config, &pods, &mut report).await?;
    packet::measure(&node, &mut report)?;
    start::measure(&node, &mut report)?;
    calls::per_attachment(&node, &mut report).await?;
    boot::measure(&mut node, config, &pods, &mut report).await?;
    restart::measure(&mut node, &mut report).await?;
    drop(node);
    stolen_token::measure(config, &mut report).await?;
    claims::measure(config, &mut report).await?;
    thresholds::evaluate(&mut report);
    Ok(report)
}

/// Runs only the benchmark of a stolen token.
pub async fn run_stolen_token() -> Result<Report> {
    let mut report = Report::default();
    stolen_token::measure(BenchConfig::from_environment()?, &mut report).await?;
    report.thresholds = vec![thresholds::of_stolen_token(&report)];
    Ok(report)
}

/// The identity of a Pod object for which the benchmark creates sandboxes.
#[derive(Clone, Debug)]
struct KubePod {
    name: String,
    uid: String,
    ipv4_only: bool,
}

impl KubePod {
    /// Creates the Pod object. If `pool` is given, an annotation on the pod selects the pool.
    async fn create(node: &SingleNode, name: &str, pool: Option<&str>) -> Result<Self> {
        let pod = node.kube_pod("default", name, pool).await?;
        let args = pod.args.clone().unwrap_or_default();
        let uid = args.rsplit_once("K8S_POD_UID=").map(|(_, uid)| uid.to_owned()).context("the pod has no UID")?;
        Ok(Self { name: name.to_owned(), uid, ipv4_only: pool.is_some() })
    }

    /// Creates a new sandbox for the pod, as the container runtime does when a pod starts or restarts.
    fn sandbox(&self, node: &SingleNode) -> Result<Sandbox> {
        let mut pod = node.sandbox()?;
        pod.is_of("default", &self.name, &self.uid);
        Ok(pod)
    }
}

/// Creates `count` IPv4-only Pod objects and `count` dual-stack Pod objects. The measured times do not include this
/// step.
async fn pod_objects(node: &SingleNode, count: usize) -> Result<Vec<KubePod>> {
    let mut pods = Vec::new();
    for (ipv4_only, prefix) in [(true, "four"), (false, "dual")] {
        for number in 0..count {
            let name = format!("{prefix}-{number}");
            let pool = ipv4_only.then_some(IPV4_POOL);
            pods.push(KubePod::create(node, &name, pool).await?);
        }
    }
    Ok(pods)
}
