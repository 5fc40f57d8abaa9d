//! Measures ADDs while another program changes routes in table `main`. On a real node, a BGP daemon that imports other
//! nodes' blocks changes this table in the same way.
//!
//! For comparison, the benchmark also measures ADDs while the same routes change in the fabric's network namespace. The
//! machine is then equally busy, but the kernel does not notify the agent of the fabric's routes.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use super::rounds::each;
use super::samples::Samples;
use super::stages::Verb;
use super::{BenchConfig, KubePod, Report};
use crate::network::Namespace;
use crate::single_node::{FABRIC_IPV4, NODE_IPV4, SingleNode, WAIT_TIMEOUT};

/// The name of the row in the report. The column `Bobbin` holds the ADD times while routes change in the node's
/// namespace. The next column holds the ADD times while routes change in the fabric's namespace.
pub const ROW: &str = "ADD, node/fabric routes";
/// The number of routes that a thread repeatedly adds and removes.
const ROUTES: usize = 5000;

/// Measures all rounds.
pub async fn measure(node: &SingleNode, config: BenchConfig, pods: &[KubePod], report: &mut Report) -> Result<()> {
    let pods: Vec<&KubePod> = pods.iter().filter(|pod| pod.ipv4_only).take(config.one_by_one).collect();
    let [mut here, mut elsewhere] = [Samples::default(), Samples::default()];
    for round in 0..config.rounds {
        eprintln!("bench: measuring ADDs while foreign routes change, round {} of {}", round + 1, config.rounds);
        for turn in [round % 2, 1 - round % 2] {
            let (namespace, gateway, samples) = if turn == 0 {
                (&node.namespace, FABRIC_IPV4, &mut here)
            } else {
                (&node.fabric, NODE_IPV4, &mut elsewhere)
            };
            let sandboxes = pods.iter().map(|pod| pod.sandbox(node)).collect::<Result<Vec<_>>>()?;
            let changes = Changes::begin(namespace.clone(), gateway);
            let (sandboxes, times) = each(&node.plugin(), Verb::Add, sandboxes, &mut report.errors)?;
            changes.end()?;
            for took in times {
                samples.add(took);
            }
            each(&node.plugin(), Verb::Del, sandboxes, &mut report.errors)?;
            node.await_assignments(&[], WAIT_TIMEOUT).await?;
        }
    }
    report.add(ROW, here, Some(elsewhere));
    Ok(())
}

/// A thread that adds and removes routes until [`Changes::end`] is called.
struct Changes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Changes {
    fn begin(namespace: Namespace, gateway: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let batches = ["add", "del"].map(|verb| batch(verb, gateway));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for batch in &batches {
                    namespace.ip(batch)?;
                }
            }
            Ok(())
        });
        Self { stop, thread }
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that changes routes panicked"))?
            .context("the thread that changes routes failed")
    }
}

/// Input for `ip -batch`. The routes have protocol 12, which is the protocol number of BIRD.
fn batch(verb: &str, gateway: &str) -> String {
    let mut lines = String::new();
    for number in 0..ROUTES {
        let _ = writeln!(lines, "route {verb} 198.18.{}.{}/32 via {gateway} proto 12", number / 256, number % 256);
    }
    lines
}
