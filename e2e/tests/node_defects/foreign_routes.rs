//! Foreign routes in table main, as on a node that imports the cluster's blocks by BGP, cause no work in the agent.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::{end, metrics_endpoint};

/// The number of routes in a batch. After each batch the agent has time for a reconcile pass, which it must not make.
const ROUTES_PER_BATCH: usize = 500;
const BATCHES: usize = 10;
/// The batches before the measurement. The agent's memory also grows for other reasons in the first seconds after a test.
const WARM_UP_BATCHES: usize = 5;
/// The reconcile pass of every minute, and one that was due.
const MAX_RECONCILES: usize = 2;
/// How much memory the allocator may take meanwhile, in KiB.
const MAX_GROWTH_KIB: u64 = 1024;

/// Lines for `ip -batch`. Protocol 12 is BIRD's.
fn routes(verb: &str, time: usize) -> String {
    let mut lines = String::new();
    for number in (0..ROUTES_PER_BATCH).map(|number| time * ROUTES_PER_BATCH + number) {
        let _ = writeln!(lines, "route {verb} 198.18.{}.{}/32 via 10.100.0.254 proto 12", number / 256, number % 256);
    }
    lines
}

pub async fn ignored(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    node.add(&pod)?;
    metrics_endpoint::await_stale_checks(node, 2).await?;
    let log = node.path("routes-strace.log");
    let arguments = ["-f", "-etrace=sendto,sendmsg", "-s64", &format!("-p{}", node.agent_pid()?)].map(str::to_owned);
    let strace = Process::start(std::path::Path::new("strace"), Some(&node.namespace.path()), &log, arguments)?;
    let text = || String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
    wait_until("strace is attached to the agent", WAIT_TIMEOUT, || async {
        Ok(check(text().contains(" attached"), text))
    })
    .await?;
    for time in 0..WARM_UP_BATCHES {
        node.namespace.ip(&routes("add", time))?;
        metrics_endpoint::await_stale_checks(node, 1).await?;
    }
    let before = node.agent_memory()?;
    for time in WARM_UP_BATCHES..WARM_UP_BATCHES + BATCHES {
        node.namespace.ip(&routes("add", time))?;
        metrics_endpoint::await_stale_checks(node, 1).await?;
    }
    let after = node.agent_memory()?;
    // Only a reconcile pass lists the rules (RTM_GETRULE).
    let dump = |line: &&str| line.contains("RTM_GETRULE") || line.contains("nlmsg_type=0x22");
    let comparisons = text().lines().filter(dump).count() / 2;
    drop(strace);
    for time in 0..WARM_UP_BATCHES + BATCHES {
        node.namespace.ip(&routes("del", time))?;
    }
    println!(
        "{} foreign routes: {comparisons} reconcile passes, {before} KiB before, {after} KiB after",
        ROUTES_PER_BATCH * BATCHES
    );
    ensure!(
        comparisons <= MAX_RECONCILES,
        "{} foreign routes caused {comparisons} reconcile passes",
        ROUTES_PER_BATCH * BATCHES
    );
    let grown = after.saturating_sub(before);
    ensure!(grown <= MAX_GROWTH_KIB, "{} foreign routes took {grown} KiB", ROUTES_PER_BATCH * BATCHES);
    node.agent_must_run().context("the agent")?;
    end(node, vec![pod], &[]).await
}
