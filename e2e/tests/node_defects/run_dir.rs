//! Tests the agent's run directory. Only one agent uses the directory, and only for one node name. A missing file does
//! not prove that an address is free.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_crds::AddressBlock;
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{Call, NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::deleted_pods::{SCALE, node_is_ready};
use super::{CONVERGENCE_TIMEOUT, await_two_stale_checks, create_small_pool, end, has_assignment, restart, scaled};

/// How long an agent may take until it logs that it is waiting, or until it serves calls.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn second_agent(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    // Give the second agent another metrics port, so that the two agents compete only for the run directory.
    node.set_agent_flags(&["--metrics-address=127.0.0.1:9120"]);
    let second = node.another_agent("second-agent.log")?;
    let path = node.path("second-agent.log");
    let log = || std::fs::read_to_string(&path).unwrap_or_default();
    let says = |line: &str| {
        let line = line.to_lowercase();
        line.contains("wait") && line.contains("lock")
    };
    wait_until(
        "the second agent logs that it is waiting for the run directory's lock, or that it is serving",
        LOG_TIMEOUT,
        || async {
            let text = log();
            Ok(check(text.lines().any(says) || text.contains("serving"), || text))
        },
    )
    .await?;
    ensure!(!log().contains("serving"), "two agents serve at the same time; the log of the second agent:\n{}", log());
    node.call(&pod.check(&result))?.ok().context("CHECK failed while a second agent was waiting")?;
    let other = node.sandbox()?;
    node.add(&other)?;
    // End the first agent. The second agent must take over the first agent's state.
    node.kill_agent();
    wait_until("the second agent serves calls", WAIT_TIMEOUT, || async {
        node.call(&Call { verb: "STATUS", ..Call::default() })?.ok()?;
        node.call(&pod.check(&result))?.ok()?;
        Ok(check(log().contains("serving"), log))
    })
    .await?;
    drop(second);
    restart(node, &[]).await?;
    end(node, vec![pod, other], &[]).await
}

pub async fn other_name(node: &mut SingleNode) -> Result<()> {
    // Let the node n1 own a block. The agent's checkpoint then names this block.
    let pod = node.sandbox()?;
    node.add(&pod)?;
    end(node, vec![pod], &[]).await?;
    node.kill_agent();
    node.set_agent_flags(&["--node-name=n2"]);
    node.proxy.set(NetworkFault::Refuse);
    node.start_agent_only()?;
    let socket = || Call { verb: "VERSION", ..Call::default() };
    wait_until("the agent of n2 serves calls", WAIT_TIMEOUT, || async {
        node.call(&socket())?.ok()?;
        let log = node.agent_log();
        let serves = log.lines().any(|line| line.contains("serving") && line.contains("n2"));
        Ok(check(serves, || node.agent_log_tail()))
    })
    .await?;
    let aside: Vec<_> = std::fs::read_dir(node.run_dir())?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.starts_with(&format!("other-node-{NODE}")))
        .collect();
    ensure!(
        aside.len() == 1,
        "the agent of n2 must set aside the files of n1 in one directory, but the directories are {aside:?}"
    );
    let pod = node.sandbox()?;
    let answer = node.call(&pod.call("ADD"))?;
    ensure!(answer.exit != 0, "the agent of n2 assigned an address of a block that n1 owns: {}", answer.stdout.trim());
    let error = answer.error()?;
    // The error depends on whether the agent of n2 knows the pool.
    ensure!(matches!(error.code, 11 | 102), "{error:?}");
    node.del(&pod)?;
    node.kill_agent();
    node.proxy.set(NetworkFault::None);
    restart(node, &[]).await?;
    for entry in std::fs::read_dir(node.run_dir())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("other-node-")) {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

pub async fn other_uid(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    node.await_assignments(&[&pod.container_id], CONVERGENCE_TIMEOUT).await?;
    node.kill_agent();
    let nodes: Api<Node> = Api::all(node.client.clone());
    nodes.delete(NODE, &DeleteParams::default()).await?;
    node.make_node().await?;
    let uid = nodes.get(NODE).await?.metadata.uid.context("the Node has no UID")?;
    node.start_agent().await?;
    wait_until("the node's blocks name its new UID", CONVERGENCE_TIMEOUT, || async {
        let own = |block: &AddressBlock| block.spec.node_name.as_deref() == Some(NODE);
        let blocks: Vec<AddressBlock> = node.blocks().await?.into_iter().filter(own).collect();
        let old: Vec<_> = blocks.iter().filter(|block| block.spec.node_uid.as_deref() != Some(&*uid)).collect();
        let right = old.is_empty() && !blocks.is_empty();
        Ok(check(right, || format!("{} of the node's {} blocks name another UID", old.len(), blocks.len())))
    })
    .await?;
    await_two_stale_checks(node).await?;
    has_assignment(node, &pod).await?;
    node.call(&pod.check(&result))?.ok()?;
    end(node, vec![pod], &[]).await
}

fn empty_run_dir(node: &SingleNode) -> Result<()> {
    for entry in std::fs::read_dir(node.run_dir())? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    Ok(())
}

pub async fn emptied_while_running(node: &mut SingleNode) -> Result<()> {
    let before = node.sandbox()?;
    node.add(&before)?;
    empty_run_dir(node)?;
    // Wait until the agent has created its socket again.
    node.await_agent(CONVERGENCE_TIMEOUT).await?;
    let after = node.sandbox()?;
    node.add(&after)?;
    node.kill_agent();
    node.start_agent().await?;
    let attachments = node.attachments()?;
    ensure!(attachments.len() == 2, "{attachments:?}");
    node.del(&before)?;
    node.del(&after)?;
    end(node, vec![before, after], &[]).await
}

pub async fn emptied(node: &mut SingleNode) -> Result<()> {
    create_small_pool(node, "emptied", "10.80.4.0/31", 1).await?;
    let linked = node.kube_pod("default", "emptied-0", Some("emptied")).await?;
    node.add(&linked)?;
    let broken = node.kube_pod("default", "emptied-1", Some("emptied")).await?;
    node.add(&broken)?;
    node.await_assignments(&[&linked.container_id, &broken.container_id], CONVERGENCE_TIMEOUT).await?;
    node.kill_agent();
    // Delete the link of the pod `broken` and all files of the run directory. Only the pod's assignment then shows that
    // its address is in use.
    node.namespace.ip(&format!("link del {}", super::link_of(node, &broken)?))?;
    empty_run_dir(node)?;
    node.start_agent().await?;
    for _ in 0..3 {
        await_two_stale_checks(node).await?;
    }
    has_assignment(node, &linked).await.context("a pod with a host link lost its assignment")?;
    has_assignment(node, &broken)
        .await
        .context("a pod of this boot that only its assignment shows lost this assignment")?;
    let next = node.kube_pod("default", "emptied-2", Some("emptied")).await?;
    let error = node.call(&next.call("ADD"))?.error()?;
    ensure!(error.code == 11 && error.text.contains("has no free address"), "{error:?}");
    // After this DEL, no attachment has an address of the block. But an assignment remains, so the agent must not
    // release the block.
    node.del(&linked)?;
    let draining =
        json!({"subnets": [{"ipv4": "10.80.4.0/31"}], "blockSizeBits": 1, "cooldownSeconds": 0, "draining": true});
    node.apply_pool_only("emptied", draining).await?;
    wait_until("a Warning event says why the agent does not release the block", WAIT_TIMEOUT, || async {
        let warnings = node.warnings("OrphanedAssignment").await?;
        let said =
            warnings.iter().any(|one| one.contains("block emptied-0 is not released") && one.contains("emptied-1"));
        Ok(check(said, || format!("{warnings:?}")))
    })
    .await?;
    has_assignment(node, &broken).await.context("a pod lost its assignment while its pool was draining")?;
    // Make the Node Ready. Only then does the agent check for missing pods, and delete the assignment of a deleted pod.
    node_is_ready(node, "True").await?;
    restart(node, &scaled(SCALE)).await?;
    end(node, vec![linked, broken, next], &["emptied-0", "emptied-1", "emptied-2"]).await?;
    restart(node, &[]).await
}
