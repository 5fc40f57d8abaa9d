//! Benchmarks of CNI calls. They execute the plugins as containerd does. In each round they measure Bobbin and the
//! reference.
//!
//! Bobbin runs with a real agent and an API server whose etcd waits for the disk. The reference is `ptp` with
//! `host-local`. A further benchmark lets many nodes claim blocks from one API server.

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

/// The address of the agent's metrics, inside the node's namespace.
const METRICS: &str = "127.0.0.1:9116";
/// The pool for pods with IPv4 only. The pool `default` has both families.
const IPV4_POOL: &str = "v4";

/// How many calls and rounds the benchmark measures.
#[derive(Clone, Copy, Debug)]
struct BenchConfig {
    rounds: usize,
    one_by_one: usize,
    /// The number of dual-stack ADDs of the reference. It is small, because each of these ADDs waits about 1.8 s for
    /// duplicate address detection.
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
    eprintln!("bench: starting etcd (with fsync), API server, operator and agent");
    let agent = vec![format!("--metrics-address={METRICS}")];
    let mut node = SingleNode::ready(SingleNodeOptions { fsync: true, agent, ..SingleNodeOptions::default() }).await?;
    node.apply_pool(IPV4_POOL, json!({"subnets": [{"ipv4": "10.65.0.0/16"}]})).await?;

    // The API server delays creates of a custom resource whose definition is less than two seconds old. Waiting for
    // free blocks keeps this delay out of the measurements.
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

/// The identity of a Pod object. The benchmark creates sandboxes for this pod.
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

    /// Creates a new sandbox for the pod, as when kubelet starts or restarts the pod.
    fn sandbox(&self, node: &SingleNode) -> Result<Sandbox> {
        let mut pod = node.sandbox()?;
        pod.is_of("default", &self.name, &self.uid);
        Ok(pod)
    }
}

/// Creates `count` Pod objects for IPv4 only, and `count` for dual stack. The benchmark does not measure this creation.
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
