//! Tests outages, crashes, full pools, and state of other programs. One real agent runs with a real API server.
//!
//! A proxy, a signal or a change in the kernel causes each fault; the agent contains no code for faults.

#[path = "agent/api_calls.rs"]
mod api_calls;
#[path = "agent/concurrent_crash.rs"]
mod concurrent_crash;
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
#[path = "agent/logs.rs"]
mod logs;
#[path = "agent/object_warnings.rs"]
mod object_warnings;
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
use serde_json::Value;

/// How long an ADD waits for an address in the agent's tests.
const ADD_TIMEOUT: Duration = Duration::from_secs(6);

fn main() -> Result<ExitCode> {
    let add_timeout = format!("--add-timeout={}s", ADD_TIMEOUT.as_secs());
    let suite = single_node::suite(SingleNodeOptions::with_agent_flags([&add_timeout, "--stale-check-interval=2s"]))?;
    let tests = vec![
        suite.test(
            "an ADD and a DEL each cost one write and no read, by the API server's audit log",
            api_calls::one_write_no_read,
        ),
        suite.test(
            "table 119 has a block before the first ADD from it returns",
            api_calls::exported_before_the_first_add,
        ),
        suite.test(
            "pods start and stop while the API server refuses connections, and their assignments follow",
            outage::refused,
        ),
        suite.test(
            "pods start and stop while the API server is silent, and their assignments follow",
            outage::black_hole,
        ),
        suite.test(
            "a node with 250 pods serves all its free addresses during an outage, and writes all within 10 s after it",
            outage::many_pods,
        ),
        suite.test("pods start and stop while each answer of the API server is late", outage::slow),
        suite.test(
            "an ADD from a block with the finalizer of its last owner waits for a late confirmation",
            outage::slow_first_confirmation,
        ),
        suite.test("pods start and stop without an operator", outage::no_operator),
        suite.test(
            "writes whose responses are lost are read back: no assignment is missing, and none is left over",
            outage::lost_responses,
        ),
        suite.test("a claim whose response is lost is neither forgotten nor repeated", outage::lost_claim),
        suite.test(
            "an agent restarted with 250 attachments serves ADDs, also while the API server refuses or is silent",
            restart::serves_again,
        ),
        suite.test(
            "an agent killed at random moments loses no address and assigns none twice",
            crash::killed_under_churn,
        ),
        suite.test("a crash between two heartbeats does not count as an outage", crash::killed_between_heartbeats),
        suite.test("a late DEL with an old container ID changes nothing", crash::late_del),
        suite.test(
            "an attachment whose network namespace is gone is removed as stale, without a DEL",
            crash::removed_as_stale,
        ),
        suite.test("after a reboot the old addresses are free and their assignments are deleted", crash::rebooted),
        suite.test("an ADD from a full pool fails with one sentence, and STATUS still succeeds", pools::full),
        suite.test("a waiting ADD succeeds when an address is released", pools::waits_for_address),
        suite.test("a waiting ADD succeeds when a subnet is appended", pools::waits_for_subnet),
        suite.test("a DEL ends the waiting ADD of its attachment at once", pools::del_ends_wait),
        suite.test("a wait for an address is logged once when it begins and once when it ends", pools::logged_once),
        suite.test(
            "the pool is selected by pod annotation, namespace annotation, namespace name, then default",
            pools::order_of_sources,
        ),
        suite.test("an ADD whose pool can't serve it fails with the pool and the reason", pools::refusals),
        suite.test(
            "an annotation that Bobbin does not know gets a Warning on its pod or namespace",
            object_warnings::unknown_annotations,
        ),
        suite.test(
            "an empty or malformed pool name gets a Warning with a remedy on its pod or namespace",
            object_warnings::bad_pool_names,
        ),
        suite.test("a hostPort that no chained plugin serves gets a Warning on its pod", object_warnings::host_port),
        suite.test("a pool of one address family assigns one address", pools::one_family),
        suite.test(
            "foreign routes, rules and CNI files are left alone, and a CNI file that sorts first is reported",
            foreign_state::survive,
        ),
        suite.test(
            "a duplicate that is found late is reported: the pod keeps running, and its address is not assigned again",
            duplicate::found_late,
        ),
        suite.test("routes and rules that another program removes are restored", foreign_state::repaired),
        suite.test(
            "a plugin or CNI configuration that disappears is installed again at once",
            host::installation,
        ),
        suite.test("a second agent waits for the run directory and logs which process holds it", host::second_agent),
        suite.test("the checkpoint of a node of another name is set aside", host::other_node),
        suite.test("a metrics port that is in use delays no pod, and is opened when it is free", host::taken_port),
        suite.test("a socket or marker file that is removed is created again", host::run_dir_emptied),
        suite.test("an unknown log format is refused with the known ones", host::log_format),
        suite.test("each ADD and each DEL has one log line with its pod, address and stages", logs::one_line),
        suite.test("the log level follows its file without a restart", logs::level_follows_file),
        suite.test("an event names its program and instance, and a long note keeps its advice", logs::events),
        suite.test("a failed ADD leaves nothing behind", foreign_state::failed_add_leaves_nothing),
        suite.test("an ADD with a failing system call at any step leaves nothing behind", injected_faults::failing),
        suite.test("an agent killed at any step of ADD leaves nothing behind", injected_faults::killed),
        suite.test(
            "an agent killed at any step of an ADD and a DEL at once finishes both, and leaves nothing behind",
            concurrent_crash::add_and_del,
        ),
        suite.test(
            "an agent and an operator killed at once, at steps of a claim and of carving, give each pod its own address",
            concurrent_crash::claim_and_carving,
        ),
    ];
    Ok(suite.run(tests))
}

/// The addresses in the CNI result of an ADD, without prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next().map(str::to_owned)).collect()
}

/// Calls ADD for `count` new pods, one after another.
fn add_pods(node: &SingleNode, count: usize) -> Result<Vec<Sandbox>> {
    let mut pods = Vec::with_capacity(count);
    for _ in 0..count {
        let pod = node.sandbox()?;
        node.add(&pod)?;
        pods.push(pod);
    }
    Ok(pods)
}

/// The container IDs of the pods.
fn ids(pods: &[Sandbox]) -> Vec<&str> {
    pods.iter().map(|pod| pod.container_id.as_str()).collect()
}

/// Checks that no two of the live pods share an address, and that the assignments in the API match the pods' addresses.
async fn state_is_consistent(node: &SingleNode, pods: &[Sandbox]) -> Result<()> {
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    node.await_assignments_of(pods).await?;
    let links = node.attachments()?;
    ensure!(links.len() == pods.len(), "the node has {} pod links, but runs {} pods", links.len(), pods.len());
    Ok(())
}
