//! The agent leaves other programs' state alone and restores Bobbin's own state. A failed ADD leaves nothing behind.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{Call, SingleNode, WAIT_TIMEOUT, ip_json};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::Value;

use super::add_pods;

/// The CNI error codes that the agent returns in these tests.
const CONTAINER_UNKNOWN: u64 = 3;
const INVALID_ENVIRONMENT: u64 = 4;
const TRY_AGAIN_LATER: u64 = 11;
const INTERFACE_EXISTS: u64 = 100;

pub async fn survive(node: &mut SingleNode) -> Result<()> {
    node.namespace.ip(
        "route add 198.51.100.0/24 via 10.100.0.254 proto 99 table 116\nroute add 198.51.101.0/24 via 10.100.0.254 proto 99 table 119\n\
         route add 198.51.102.0/24 via 10.100.0.254\nrule add from 198.51.100.7 table 77 priority 1999\n\
         link add foreign0 type veth peer name foreign1\n",
    )?;
    let file = node.path("cni-conf").join("05-foreign.conflist");
    std::fs::write(&file, r#"{"cniVersion":"1.0.0","name":"foreign","plugins":[{"type":"loopback"}]}"#)?;
    let pods = add_pods(node, 2)?;
    node.kill_agent();
    node.start_agent().await?;
    wait_until("the agent logs that a CNI configuration sorts before Bobbin's", WAIT_TIMEOUT, || async {
        Ok(check(node.agent_log().contains("05-foreign.conflist"), || {
            "the agent's log does not name the file".to_owned()
        }))
    })
    .await?;
    node.remove_pods(pods).await?;
    for (table, dst) in [(116, "198.51.100.0/24"), (119, "198.51.101.0/24"), (254, "198.51.102.0/24")] {
        ensure!(
            node.table(table)?.iter().any(|(seen, _)| seen == dst),
            "the foreign route to {dst} is gone from table {table}"
        );
    }
    let rules = ip_json(&node.namespace, "rule show")?;
    let priorities: Vec<u64> = rules
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.get("priority").and_then(Value::as_u64))
        .collect();
    ensure!(priorities.contains(&1999) && priorities.contains(&2000), "{priorities:?}");
    ensure!(file.exists(), "the foreign CNI file is gone");
    std::fs::remove_file(&file)?;
    node.namespace.ip("link del foreign0\nrule del priority 1999\nroute del 198.51.100.0/24 table 116\nroute del 198.51.101.0/24 table 119\nroute del 198.51.102.0/24")
}

pub async fn repaired(node: &mut SingleNode) -> Result<()> {
    let pods = add_pods(node, 2)?;
    let wanted = |table: Vec<(String, String)>| {
        let mut table = table;
        table.sort();
        table
    };
    let (before_116, before_119) = (wanted(node.table(116)?), wanted(node.table(119)?));
    for arguments in [
        "-4 route flush table 116",
        "-6 route flush table 116",
        "-4 route flush table 119",
        "-6 route flush table 119",
        "-4 rule del priority 2000",
        "-6 rule del priority 2000",
    ] {
        let status = node.namespace.command("ip").args(arguments.split(' ')).status()?;
        ensure!(status.success(), "ip {arguments}: {status}");
    }
    wait_until("the agent has restored its routes and rules", WAIT_TIMEOUT, || async {
        let rules: Vec<Value> = ["-4 rule show", "-6 rule show"]
            .into_iter()
            .map(|what| ip_json(&node.namespace, what))
            .collect::<Result<_>>()?;
        let ours = |rules: &Value| rules.as_array().is_some_and(|all| all.iter().any(|rule| rule["priority"] == 2000));
        let same = wanted(node.table(116)?) == before_116 && wanted(node.table(119)?) == before_119;
        Ok(check(same && rules.iter().all(ours), || format!("{:?} {:?}", node.table(116), node.table(119))))
    })
    .await?;
    node.remove_pods(pods).await
}

pub async fn failed_add_leaves_nothing(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    pod.namespace.ip("link add eth0 type veth peer name foreign")?;
    let file = node.path("no-namespace");
    std::fs::write(&file, "")?;
    let unknown = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=nobody;K8S_POD_UID=0";
    let other = node.sandbox()?;
    for (call, code, words) in [
        (pod.call("ADD"), INTERFACE_EXISTS, "eth0"),
        (
            Call { netns: Some(node.namespace.path()), ..other.call("ADD") },
            INVALID_ENVIRONMENT,
            "own network namespace",
        ),
        (Call { netns: Some(file), ..other.call("ADD") }, CONTAINER_UNKNOWN, "sandbox"),
        (other.call("ADD").args(unknown), TRY_AGAIN_LATER, "default/nobody"),
    ] {
        let error = node.call(&call)?.error()?;
        ensure!(
            error.code == code && error.text.contains(words),
            "the error must have code {code} and the words {words:?}: {error:?}"
        );
        ensure!(!error.text.contains('\n'), "{error:?}");
        node.await_empty().await?;
    }
    // Foreign routes occupy all addresses of the block. The ADD fails, names the conflicting route, and leaves nothing
    // behind.
    let first = node.sandbox()?;
    let result = node.add(&first)?;
    node.del(&first)?;
    let taken = super::addresses(&result);
    let (beginning, _) = taken[0].rsplit_once('.').context("the pod has no IPv4 address")?;
    let routes = |verb: &str| {
        (0..=255).fold(String::new(), |mut lines, last| {
            let _ = writeln!(lines, "route {verb} {beginning}.{last}/32 dev uplink proto 99 table 116");
            lines
        })
    };
    node.namespace.ip(&routes("add"))?;
    let next = node.sandbox()?;
    let error = node.call(&next.call("ADD"))?.error()?;
    ensure!(error.text.contains("another program (protocol 99) over uplink"), "{error:?}");
    node.del(&next)?;
    node.await_empty().await?;
    node.namespace.ip(&routes("del"))
}
