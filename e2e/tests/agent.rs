//! The agent on one node with a real API server, and what goes wrong around it: outages, crashes, full pools, foreign things.
//!
//! Faults come from outside: a proxy, a signal, a hand on the kernel. All tests share the node and take turns; each cleans up.

#[path = "agent/api_calls.rs"]
mod api_calls;
#[path = "agent/crash.rs"]
mod crash;
#[path = "agent/duplicate.rs"]
mod duplicate;
#[path = "agent/foreign_state.rs"]
mod foreign_state;
#[path = "agent/host.rs"]
mod host;
#[path = "agent/injected_faults.rs"]
mod injected_faults;
#[path = "agent/outage.rs"]
mod outage;
#[path = "agent/pools.rs"]
mod pools;
#[path = "agent/restart.rs"]
mod restart;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{self, Sandbox, SingleNode, SingleNodeOptions};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::Value;

/// How long a held ADD is held here.
const HOLD: Duration = Duration::from_secs(6);
/// How long it may take until the records are right again.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_mins(1);

fn main() -> Result<ExitCode> {
    let flags = [format!("--hold-add={}s", HOLD.as_secs()), "--sweep-interval=2s".to_owned()];
    let suite = single_node::suite(SingleNodeOptions { agent: flags.to_vec(), ..SingleNodeOptions::default() })?;
    let tests = vec![
        suite.test(
            "an ADD and a DEL cost one write and no read each, by the API server's own count",
            api_calls::one_write_no_read,
        ),
        suite.test("table 119 has a block before its first ADD returns", api_calls::exported_before_the_first_add),
        suite.test("pods start and stop while the API server refuses, and the records catch up", outage::refused),
        suite.test(
            "pods start and stop while the API server is a black hole, and the records catch up",
            outage::black_hole,
        ),
        suite.test("pods start and stop without an operator", outage::no_operator),
        suite.test(
            "writes whose answers are lost are read back: no record too many, none missing",
            outage::lost_answers,
        ),
        suite.test("a claim whose answer is lost is neither lost nor doubled", outage::lost_claim),
        suite.test(
            "an agent restarted with 250 attachments serves ADDs, also while the API server refuses or is silent",
            restart::serves_again,
        ),
        suite.test(
            "an agent killed at any moment under churn loses no address and gives none twice",
            crash::killed_under_churn,
        ),
        suite.test("a late DEL with an old container ID changes nothing", crash::late_del),
        suite.test("an attachment whose namespace is gone is swept without a DEL", crash::swept),
        suite.test("after a reboot the old addresses are free and the records gone", crash::rebooted),
        suite.test("a full pool says so in one sentence, and STATUS stays success", pools::full),
        suite.test("a held ADD goes on when an address comes free", pools::held_until_freed),
        suite.test("a held ADD goes on when a subnet is appended", pools::held_until_appended),
        suite.test("a DEL ends the held ADD of its attachment at once", pools::called_off),
        suite.test("a wait for an address is one line when it begins and one when it ends", pools::said_once),
        suite.test(
            "pod annotation beats namespace annotation beats namespace name beats default",
            pools::order_of_sources,
        ),
        suite.test("a pool that can't serve is named with its reason", pools::refusals),
        suite.test("pools of one family give one address", pools::one_family),
        suite.test(
            "a foreign route, rule and CNI file survive, and a file that sorts first is reported",
            foreign_state::survive,
        ),
        suite.test(
            "a duplicate that is found late is reported: the pod keeps running, the address does not go out again",
            duplicate::found_late,
        ),
        suite.test("what another program removes is repaired", foreign_state::repaired),
        suite.test("a plugin or configuration that disappears is put back within a minute", host::installation),
        suite.test("a second agent waits for the run directory and says who has it", host::second_agent),
        suite.test("the checkpoint of a node of another name is set aside", host::other_node),
        suite.test("a metrics port that is taken keeps no pod waiting, and is had when it is free", host::taken_port),
        suite.test("a socket or marker that is removed is made again", host::run_dir_emptied),
        suite.test("an unknown log format is refused with the choices", host::log_format),
        suite.test("a failed ADD leaves nothing behind", foreign_state::failed_add_leaves_nothing),
        suite.test("a failing step at each point of ADD leaves nothing behind", injected_faults::failing),
        suite.test("an agent killed at each point of ADD leaves nothing behind", injected_faults::killed),
    ];
    Ok(suite.run(tests))
}

/// The addresses in a result, without prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next().map(str::to_owned)).collect()
}

/// Adds so many pods, one after another.
fn add_pods(node: &SingleNode, count: usize) -> Result<Vec<Sandbox>> {
    let mut pods = Vec::with_capacity(count);
    for _ in 0..count {
        let pod = node.sandbox()?;
        node.add(&pod)?;
        pods.push(pod);
    }
    Ok(pods)
}

/// The container IDs.
fn ids(pods: &[Sandbox]) -> Vec<&str> {
    pods.iter().map(|pod| pod.container_id.as_str()).collect()
}

/// Deletes these pods, and waits until nothing of any pod is left on the node or in the API.
async fn end(node: &SingleNode, pods: Vec<Sandbox>) -> Result<()> {
    for pod in &pods {
        node.del(pod)?;
    }
    drop(pods);
    await_empty_node(node).await
}

async fn await_empty_node(node: &SingleNode) -> Result<()> {
    node.await_assignments(&[], CONVERGENCE_TIMEOUT).await?;
    wait_until("no link and no journal entry is left", CONVERGENCE_TIMEOUT, || async {
        let links = node.attachments()?.len();
        let journal = std::fs::read_dir(node.run_dir().join("attachments"))?.count();
        Ok(check(links == 0 && journal == 0, || format!("{links} links, {journal} entries")))
    })
    .await
}

/// Fails if two live pods share an address, or the records are not exactly theirs.
async fn state_is_consistent(node: &SingleNode, pods: &[Sandbox]) -> Result<()> {
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    node.await_assignments(&ids(pods), CONVERGENCE_TIMEOUT).await?;
    let links = node.attachments()?;
    ensure!(links.len() == pods.len(), "{} links for {} pods", links.len(), pods.len());
    Ok(())
}
