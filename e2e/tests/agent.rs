//! The agent on one node with a real API server, and what goes wrong around it: outages, crashes, full pools, foreign things.
//!
//! Faults come from outside: a proxy, a signal, a hand on the kernel. All tests share the node and take turns; each cleans up.

#[path = "agent/api_calls.rs"]
mod api_calls;
#[path = "agent/crash.rs"]
mod crash;
#[path = "agent/duplicate.rs"]
mod duplicate;
#[path = "agent/foreign.rs"]
mod foreign;
#[path = "agent/host.rs"]
mod host;
#[path = "agent/outage.rs"]
mod outage;
#[path = "agent/pools.rs"]
mod pools;
#[path = "agent/restart.rs"]
mod restart;
#[path = "agent/steps.rs"]
mod steps;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::lone_node::{Choice, LoneNode, Pod, Turns};
use bobbin_e2e::until::{so, until};
use serde_json::Value;

/// How long a held ADD is held here.
const HOLD: Duration = Duration::from_secs(6);
/// How long it may take until the records are right again.
const CATCH_UP: Duration = Duration::from_mins(1);

fn main() -> Result<ExitCode> {
    let flags = [format!("--add-timeout={}s", HOLD.as_secs()), "--stale-check-interval=2s".to_owned()];
    let turns = Turns::on(Choice { agent: flags.to_vec(), ..Choice::default() })?;
    let tests = vec![
        turns.test(
            "an ADD and a DEL cost one write and no read each, by the API server's own count",
            api_calls::one_write_no_read,
        ),
        turns.test("table 119 has a block before its first ADD returns", api_calls::exported_before_the_first_add),
        turns.test("pods start and stop while the API server refuses, and the records catch up", outage::refused),
        turns.test(
            "pods start and stop while the API server is a black hole, and the records catch up",
            outage::black_hole,
        ),
        turns.test("pods start and stop without an operator", outage::no_operator),
        turns.test(
            "writes whose answers are lost are read back: no record too many, none missing",
            outage::lost_answers,
        ),
        turns.test("a claim whose answer is lost is neither lost nor doubled", outage::lost_claim),
        turns.test(
            "a restart with 250 attachments serves within 1 s: healthy, refused, swallowed",
            restart::within_a_second,
        ),
        turns.test(
            "an agent killed at any moment under churn loses no address and gives none twice",
            crash::killed_under_churn,
        ),
        turns.test("a late DEL with an old container ID changes nothing", crash::late_del),
        turns.test("an attachment whose namespace is gone is swept without a DEL", crash::swept),
        turns.test("after a reboot the old addresses are free and the records gone", crash::rebooted),
        turns.test("a full pool says so in one sentence, and STATUS stays success", pools::full),
        turns.test("a held ADD goes on when an address comes free", pools::held_until_freed),
        turns.test("a held ADD goes on when a subnet is appended", pools::held_until_appended),
        turns.test("a DEL ends the held ADD of its attachment at once", pools::called_off),
        turns.test("a wait for an address is one line when it begins and one when it ends", pools::said_once),
        turns.test(
            "pod annotation beats namespace annotation beats namespace name beats default",
            pools::order_of_sources,
        ),
        turns.test("a pool that can't serve is named with its reason", pools::refusals),
        turns.test("pools of one family give one address", pools::one_family),
        turns.test(
            "a foreign route, rule and CNI file survive, and a file that sorts first is reported",
            foreign::survive,
        ),
        turns.test(
            "a duplicate that is found late is reported: the pod keeps running, the address does not go out again",
            duplicate::found_late,
        ),
        turns.test("what another program removes is repaired", foreign::repaired),
        turns.test("a plugin or configuration that disappears is put back within a minute", host::installation),
        turns.test("a second agent waits for the run directory and says who has it", host::second_agent),
        turns.test("the checkpoint of a node of another name is set aside", host::other_node),
        turns.test("a metrics port that is taken keeps no pod waiting, and is had when it is free", host::taken_port),
        turns.test("a socket or marker that is removed is made again", host::run_dir_emptied),
        turns.test("an unknown log format is refused with the choices", host::log_format),
        turns.test("a failed ADD leaves nothing behind", foreign::failed_add_leaves_nothing),
        turns.test("a failing step at each point of ADD leaves nothing behind", steps::failing),
        turns.test("an agent killed at each point of ADD leaves nothing behind", steps::killed),
    ];
    Ok(turns.run(tests))
}

/// The addresses in a result, without prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next().map(str::to_owned)).collect()
}

/// Adds so many pods, one after another.
fn add_pods(node: &LoneNode, count: usize) -> Result<Vec<Pod>> {
    let mut pods = Vec::with_capacity(count);
    for _ in 0..count {
        let pod = node.pod()?;
        node.add(&pod)?;
        pods.push(pod);
    }
    Ok(pods)
}

/// The container IDs.
fn ids(pods: &[Pod]) -> Vec<&str> {
    pods.iter().map(|pod| pod.container_id.as_str()).collect()
}

/// Deletes these pods, and waits until nothing of any pod is left on the node or in the API.
async fn end(node: &LoneNode, pods: Vec<Pod>) -> Result<()> {
    for pod in &pods {
        node.del(pod)?;
    }
    drop(pods);
    node_is_empty(node).await
}

async fn node_is_empty(node: &LoneNode) -> Result<()> {
    node.await_records(&[], CATCH_UP).await?;
    until("no link and no journal entry is left", CATCH_UP, || async {
        let links = node.attachments()?.len();
        let journal = std::fs::read_dir(node.run_dir().join("attachments"))?.count();
        Ok(so(links == 0 && journal == 0, || format!("{links} links, {journal} entries")))
    })
    .await
}

/// Fails if two live pods share an address, or the records are not exactly theirs.
async fn all_is_right(node: &LoneNode, pods: &[Pod]) -> Result<()> {
    node.no_address_twice(&pods.iter().collect::<Vec<_>>())?;
    node.await_records(&ids(pods), CATCH_UP).await?;
    let links = node.attachments()?;
    ensure!(links.len() == pods.len(), "{} links for {} pods", links.len(), pods.len());
    Ok(())
}
