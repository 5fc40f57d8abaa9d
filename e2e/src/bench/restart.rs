//! Measures an agent with many pods: its memory, and the time from its restart after a SIGKILL until an ADD succeeds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Report;
use super::samples::Samples;
use crate::network::NetworkFault;
use crate::single_node::{SingleNode, WAIT_TIMEOUT};

/// The number of pods on the node during the measurements.
const ATTACHMENTS: usize = 250;
/// The number of restarts for each network fault.
const RESTARTS: usize = 5;
/// The pause before the benchmark repeats a failed ADD. A container runtime also repeats failed ADDs.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Measures the agent's memory and its restarts. The API server answers during one restart, and is silent during the
/// next one.
pub async fn measure(node: &mut SingleNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: measuring the memory and the restarts of an agent with {ATTACHMENTS} pods");
    let mut pods = Vec::with_capacity(ATTACHMENTS);
    for _ in 0..ATTACHMENTS {
        let pod = node.sandbox()?;
        node.add(&pod)?;
        pods.push(pod);
    }
    let ids: Vec<&str> = pods.iter().map(|pod| pod.container_id.as_str()).collect();
    node.await_assignments(&ids, WAIT_TIMEOUT).await?;
    report.agent_kib = Some(node.agent_memory()?);
    let mut restarts = [NetworkFault::None, NetworkFault::BlackHole].map(|fault| (fault, Samples::default()));
    for _ in 0..RESTARTS {
        for (fault, samples) in &mut restarts {
            node.kill_agent();
            node.proxy.set(*fault);
            let took = first_add(node).await;
            node.proxy.set(NetworkFault::None);
            samples.add(
                took.with_context(|| format!("the restart of the agent with the network fault {fault:?} failed"))?,
            );
            // The fault delays the writes of assignments. Wait until these writes are done, so that they don't slow the
            // next restart.
            node.await_assignments(&ids, WAIT_TIMEOUT).await?;
        }
    }
    report.restarts.extend(restarts);
    let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("DEL")).collect())?;
    for answer in answers {
        answer.ok()?;
    }
    Ok(())
}

/// The time from the start of the agent's process until the first ADD succeeds.
async fn first_add(node: &mut SingleNode) -> Result<Duration> {
    let pod = node.sandbox()?;
    let start = Instant::now();
    node.start_agent_only()?;
    loop {
        let answer = node.call(&pod.call("ADD"))?;
        if answer.exit == 0 {
            let took = start.elapsed();
            node.del(&pod)?;
            return Ok(took);
        }
        ensure!(
            start.elapsed() < WAIT_TIMEOUT,
            "no ADD succeeded after the agent started; the last ADD answered: {}",
            answer.stdout.trim()
        );
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}
