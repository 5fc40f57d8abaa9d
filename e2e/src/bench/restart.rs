//! An agent with many pods: its memory, and how soon it answers an ADD after a SIGKILL and a restart.

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
/// How long the benchmark waits before it repeats a failed ADD, as a runtime would.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Measures the agent's memory and restarts. During the restarts, the API server is alternately healthy and silent.
pub async fn measure(node: &mut SingleNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: memory and restart with {ATTACHMENTS} pods");
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
            samples.add(took.with_context(|| format!("restart of the agent with the network fault {fault:?}"))?);
            // Wait for the assignments that the fault delayed, so that they don't slow the next restart.
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

/// The time from exec of the agent to the answer of the first successful ADD.
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
            "no ADD succeeded after the start of the agent; the last answer: {}",
            answer.stdout.trim()
        );
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}
