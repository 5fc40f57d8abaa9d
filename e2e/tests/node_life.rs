//! Tests faults of whole nodes. A node with many pods loses power, the Node of a cut-off node is deleted, and disks are
//! full.

#[path = "node_life/cut_off.rs"]
mod cut_off;
#[path = "node_life/disk_full.rs"]
mod disk_full;
#[path = "node_life/power_cut.rs"]
mod power_cut;

use std::process::ExitCode;

use anyhow::Result;
use bobbin_e2e::single_node::{self, Sandbox, SingleNode, SingleNodeOptions};

fn main() -> Result<ExitCode> {
    let suite = single_node::suite(options())?;
    let tests = vec![
        suite.test(
            "after a power cut with 100 pods, 100 new pods start at once and nothing old is left",
            power_cut::wiped,
        ),
        suite.test("a run directory that outlives a power cut keeps no old address", power_cut::kept),
        suite.test(
            "a node that is cut off keeps its addresses if its Node comes back within the grace period",
            cut_off::within_grace,
        ),
        suite.test("a node that is cut off claims its addresses back after the grace period", cut_off::after_grace),
        suite.test("on a full disk ADD fails without a trace, DEL succeeds, and both recover", disk_full::run_dir),
        suite.test(
            "a plugin that does not fit on a full disk is installed completely when the disk has space again",
            disk_full::cni_dirs,
        ),
    ];
    Ok(suite.run(tests))
}

/// Options that shorten the agent's waits and the ADD timeout.
fn options() -> SingleNodeOptions {
    SingleNodeOptions::with_agent_flags(["--time-scale=0.1", "--add-timeout=3s"])
}

/// Calls ADD for `count` new pods at once. Fails if an ADD fails.
fn add_at_once(node: &SingleNode, count: usize) -> Result<Vec<Sandbox>> {
    let pods: Vec<Sandbox> = (0..count).map(|_| node.sandbox()).collect::<Result<_>>()?;
    let calls = pods.iter().map(|pod| pod.call("ADD")).collect();
    for answer in node.plugin().call_at_once(calls)?.0 {
        answer.ok()?;
    }
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    Ok(pods)
}
