//! The agent with many pods: its memory, and how soon it serves again after it was killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Report;
use super::samples::Samples;
use crate::lone_node::{LoneNode, PATIENCE};
use crate::proxy::Weather;

/// Pods that are there when memory and restarts are measured.
const MANY: usize = 250;
/// Restarts of each kind.
const RESTARTS: usize = 5;
/// Between two calls of a runtime that repeats them.
const PAUSE: Duration = Duration::from_millis(2);

/// Measures both. Restarts with the API server healthy and silent take turns.
pub async fn measure(node: &mut LoneNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: memory and restart with {MANY} pods");
    let mut pods = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        let pod = node.pod()?;
        node.add(&pod)?;
        pods.push(pod);
    }
    let ids: Vec<&str> = pods.iter().map(|pod| pod.container_id.as_str()).collect();
    node.await_records(&ids, PATIENCE).await?;
    report.agent_kib = Some(node.agent_memory()?);
    let mut restarts = [Weather::Healthy, Weather::BlackHole].map(|weather| (weather, Samples::default()));
    for _ in 0..RESTARTS {
        for (weather, samples) in &mut restarts {
            node.kill_agent();
            node.proxy.set(*weather);
            let took = first_add(node).await;
            node.proxy.set(Weather::Healthy);
            samples.add(took.with_context(|| format!("restart, {weather:?}"))?);
            // What an outage left behind is not the next restart's.
            node.await_records(&ids, PATIENCE).await?;
        }
    }
    report.restarts.extend(restarts);
    let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("DEL")).collect())?;
    for answer in answers {
        answer.ok()?;
    }
    Ok(())
}

/// From exec of the agent to the answer of the first ADD.
async fn first_add(node: &mut LoneNode) -> Result<Duration> {
    let pod = node.pod()?;
    let start = Instant::now();
    node.start_agent_only()?;
    loop {
        let answer = node.call(&pod.call("ADD"))?;
        if answer.exit == 0 {
            let took = start.elapsed();
            node.del(&pod)?;
            return Ok(took);
        }
        ensure!(start.elapsed() < PATIENCE, "no ADD succeeded: {}", answer.stdout.trim());
        tokio::time::sleep(PAUSE).await;
    }
}
