//! Foreign routes in table main cause no work for the agent. A node that imports the cluster's blocks by BGP has many
//! such routes.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::{end, metrics_endpoint};

/// The number of routes in a batch. After each batch, the test waits long enough to see that the batch causes no
/// reconcile pass.
const ROUTES_PER_BATCH: usize = 500;
const BATCHES_PER_STRETCH: usize = 5;
/// The number of stretches. A stretch has `BATCHES_PER_STRETCH` batches. If the agent kept the routes, its memory would
/// grow in every stretch. Growth with other causes occurs only in some stretches.
const STRETCHES: usize = 3;
/// The maximum number of reconcile passes while the test counts them. One is the regular pass of each minute, and
/// another may have been due when the count began.
const MAX_RECONCILES: usize = 2;
/// How much the agent's memory may grow in the stretch with the smallest growth, in KiB. If the agent kept 100 bytes of
/// each route, the memory would grow by 244 KiB.
const MAX_GROWTH_KIB: u64 = 128;

/// Lines for `ip -batch` that add or remove routes of protocol 12, which is BIRD.
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
    let mut growths = Vec::new();
    for stretch in 0..STRETCHES {
        let before = node.agent_memory()?;
        for batch in 0..BATCHES_PER_STRETCH {
            node.namespace.ip(&routes("add", stretch * BATCHES_PER_STRETCH + batch))?;
            metrics_endpoint::await_stale_checks(node, 1).await?;
        }
        growths.push(node.agent_memory()?.saturating_sub(before));
    }
    // Count the lists of rules (RTM_GETRULE), because only a reconcile pass lists the rules.
    let dump = |line: &&str| line.contains("RTM_GETRULE") || line.contains("nlmsg_type=0x22");
    let comparisons = text().lines().filter(dump).count() / 2;
    drop(strace);
    for batch in 0..STRETCHES * BATCHES_PER_STRETCH {
        node.namespace.ip(&routes("del", batch))?;
    }
    let added = STRETCHES * BATCHES_PER_STRETCH * ROUTES_PER_BATCH;
    println!(
        "{added} foreign routes caused {comparisons} reconcile passes; the agent's memory grew by {growths:?} KiB"
    );
    ensure!(comparisons <= MAX_RECONCILES, "{added} foreign routes caused {comparisons} reconcile passes");
    ensure!(
        growths.iter().any(|grown| *grown <= MAX_GROWTH_KIB),
        "the agent's memory grew by {growths:?} KiB, each time with {} foreign routes",
        BATCHES_PER_STRETCH * ROUTES_PER_BATCH
    );
    node.agent_must_run().context("the agent ended during the test")?;
    end(node, vec![pod], &[]).await
}
