//! Runs chaos tests on a cluster of real kubelets: pods come and go while random faults happen. The invariant checker
//! repeatedly checks the cluster.
//!
//! The seed of a run determines the plan of faults and the order of the changes to pods. The exact times of both depend
//! on the machine.

mod churn;
mod fault;
mod plan;
mod pod_log;
mod requests;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::demo::print_step;
use crate::invariants;
use fault::ActiveFault;
use plan::PlannedFault;
use pod_log::{PodCounts, PodLog};

/// The chart's values in a run. They make Bobbin's waits so short that the waits end even in a short run. But
/// `nodeGracePeriod` must be longer than a kubelet takes to register its deleted Node again.
const VALUES: [&str; 5] = [
    "agent.blockIdle=5s",
    "operator.nodeGracePeriod=60s",
    "agent.staleCheckInterval=4s",
    "operator.statusInterval=1s",
    "agent.relistInterval=30s",
];
/// The pause between two passes of the run's main loop.
const PASS_INTERVAL: Duration = Duration::from_millis(500);
/// The time limit of one check of the invariants. Without a limit, a check hangs while the API server is frozen.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the cluster may take after the last fault until the invariants hold. It may take as long again after the
/// run's pods are deleted.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(3);

/// The results of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    seconds: u64,
    faults: usize,
    pods: PodCounts,
    duplicates: BTreeSet<String>,
    leaks: Vec<String>,
}

impl Outcome {
    /// Whether the run found nothing wrong. A run without faults, ADDs or DELs is not good, because it proves nothing.
    pub fn is_good(&self) -> bool {
        self.duplicates.is_empty()
            && self.leaks.is_empty()
            && self.faults > 0
            && self.pods.adds > 0
            && self.pods.dels > 0
    }

    /// The run's findings, as sentences.
    pub fn findings(&self) -> impl Iterator<Item = &String> {
        self.duplicates.iter().chain(&self.leaks)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "chaos: {} seconds, {} faults, {} adds, {} dels, {} duplicates, {} leaks, longest start {} ms",
            self.seconds,
            self.faults,
            self.pods.adds,
            self.pods.dels,
            self.duplicates.len(),
            self.leaks.len(),
            self.pods.longest_start.as_millis()
        )
    }
}

/// Installs Bobbin behind an API proxy, and creates the pools and the first pods of a run.
///
/// # Errors
/// Fails if Bobbin, the pools or the pods do not become ready.
pub async fn prepare(cluster: &mut Cluster) -> Result<()> {
    cluster.start_api_proxy().await?;
    cluster.install(&VALUES).await?;
    for pool in churn::pools() {
        cluster.apply(&pool).await?;
        cluster.await_condition(pool, "Ready", "True", Duration::from_secs(30)).await?;
    }
    churn::prepare(cluster).await?;
    cluster.await_ready_pods(churn::NAMESPACE, "", "app", 6, Duration::from_secs(90)).await.map(drop)
}

/// Plans faults from the seed, and causes them on a prepared cluster. Then waits until the cluster has settled.
///
/// # Errors
/// Fails if a fault ended a program and this program does not start again. If the cluster does not settle, the outcome
/// reports the reasons as leaks.
pub async fn run(cluster: &mut Cluster, seed: u64, length: Duration) -> Result<Outcome> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    let mut planned: VecDeque<PlannedFault> = plan::plan(seed, length, cluster.nodes().count()).into();
    let mut active: Vec<ActiveFault> = Vec::new();
    let log = PodLog::default();
    let tasks = [
        tokio::spawn(churn::run(cluster.client(), seed)),
        tokio::spawn(log.clone().watch(cluster.client(), churn::NAMESPACE)),
    ];
    while start.elapsed() < length || !active.is_empty() {
        for index in (0..active.len()).rev() {
            if active[index].is_due() {
                outcome.faults += usize::from(active.swap_remove(index).finish(cluster).await?);
            }
        }
        while planned.front().is_some_and(|fault| fault.begin <= start.elapsed()) {
            let Some(next) = planned.pop_front() else { break };
            // On a busy machine, an earlier fault may last longer than planned. Skip the next fault if it would disturb
            // the same programs as a fault that is still active.
            if active.iter().any(|fault| fault.excludes(&next)) {
                continue;
            }
            if let Some(fault) = fault::begin(cluster, &next).await? {
                print_step(&format!("{:4} s: {fault}", start.elapsed().as_secs()));
                active.push(fault);
            }
        }
        if let Ok(findings) = tokio::time::timeout(CHECK_TIMEOUT, invariants::never_allowed(cluster)).await {
            for finding in findings {
                if outcome.duplicates.insert(finding.to_string()) {
                    print_step(&format!("{:4} s: FOUND: {finding}", start.elapsed().as_secs()));
                }
            }
        }
        tokio::time::sleep(PASS_INTERVAL).await;
    }
    outcome.seconds = start.elapsed().as_secs();
    tasks[0].abort();
    print_step("the last fault has ended; waiting until the cluster has settled");
    if let Err(error) = settle(cluster).await {
        outcome.leaks = format!("{error:#}").lines().map(ToOwned::to_owned).collect();
    }
    outcome.pods = log.counts();
    tasks[1].abort();
    Ok(outcome)
}

/// Waits until every node is Ready and the invariants hold. Then deletes the run's pods, and waits until the invariants
/// hold again.
async fn settle(cluster: &mut Cluster) -> Result<()> {
    cluster.await_nodes_ready().await.context("the nodes did not become Ready after the last fault")?;
    cluster
        .await_invariants(SETTLE_TIMEOUT)
        .await
        .context("the invariants did not hold while the pods of the run existed")?;
    cluster.kubectl(["-n", churn::NAMESPACE, "delete", "job", "--all", "--wait=false"])?;
    cluster.delete_all_pods(churn::NAMESPACE).await?;
    cluster
        .await_invariants(SETTLE_TIMEOUT)
        .await
        .context("the invariants did not hold after the pods of the run were deleted")
}
