//! Counts the agent's API calls per ADD and DEL in the API server's audit log.

use anyhow::{Result, ensure};
use bobbin_e2e::control_plane::Entry;
use bobbin_e2e::single_node::{AGENT_USER, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

pub async fn one_write_no_read(node: &mut SingleNode) -> Result<()> {
    // All pods fit into one block, so the agent claims no block while the test counts API calls.
    node.apply_pool("counted", json!({"subnets": [{"ipv4": "10.66.0.0/16"}], "blockSizeBits": 8})).await?;
    // Wait for the pool's free blocks. If an ADD had to wait for them, the agent would publish an event, which is one
    // more API call.
    node.await_free_blocks("counted").await?;
    let mut pods = Vec::new();
    for number in 0..101 {
        pods.push(node.kube_pod("default", &format!("counted-{number}"), Some("counted")).await?);
    }
    // The first ADD makes the agent claim the block. The agent may also claim a spare block.
    node.add(&pods[0])?;
    wait_until("the agent has claimed its blocks", WAIT_TIMEOUT, || async {
        let blocks = node.own_blocks("counted").await?.len();
        Ok(check(blocks >= 1 && node.assignments().await?.len() == 1, || format!("{blocks} blocks")))
    })
    .await?;
    let audit = node.control_plane.audit();
    for (verb, what) in [("ADD", "create"), ("DEL", "delete")] {
        let mark = audit.mark();
        for pod in &pods[1..] {
            node.call(&pod.call(verb))?.ok()?;
        }
        let of_agent = |entry: &Entry| entry.user.username == AGENT_USER && (entry.is_write() || entry.is_read());
        wait_until(&format!("the audit log shows 100 {what} calls for assignments"), WAIT_TIMEOUT, || async {
            let seen =
                audit.calls(mark, |one| of_agent(one) && one.verb == what && one.resource() == "ipassignments")?.len();
            Ok(check(seen >= 100, || format!("{seen}")))
        })
        .await?;
        let calls = audit.calls(mark, of_agent)?;
        let named: Vec<String> =
            calls.iter().map(|one| format!("{} {} {}", one.verb, one.resource(), one.name())).collect();
        let others: Vec<&String> =
            named.iter().filter(|name| !name.starts_with(&format!("{what} ipassignments"))).collect();
        ensure!(
            named.len() == 100 && others.is_empty(),
            "100 {verb}s caused {} API calls; the unexpected calls are {others:?}",
            named.len()
        );
    }
    node.del(&pods[0])?;
    for number in 0..101 {
        node.delete_kube_pod("default", &format!("counted-{number}")).await?;
    }
    node.remove_pods(Vec::new()).await
}

pub async fn exported_before_the_first_add(node: &mut SingleNode) -> Result<()> {
    node.apply_pool(
        "exported",
        json!({"subnets": [{"ipv4": "10.67.0.0/24", "ipv6": "fd00:67::/120"}], "blockSizeBits": 2}),
    )
    .await?;
    let mut pods = Vec::new();
    for number in 0..9 {
        let pod = node.kube_pod("default", &format!("exported-{number}"), Some("exported")).await?;
        node.add(&pod)?;
        let export = node.table(119)?;
        for address in pod.addresses()? {
            let inside = |dst: &str| dst.parse::<ipnet::IpNet>().is_ok_and(|net| net.contains(&address));
            ensure!(
                export.iter().any(|(dst, dev)| inside(dst) && dev == "lo"),
                "the pod's address {address} is in none of the exported blocks {export:?}"
            );
        }
        pods.push(pod);
    }
    for number in 0..9 {
        node.delete_kube_pod("default", &format!("exported-{number}")).await?;
    }
    node.remove_pods(pods).await
}
