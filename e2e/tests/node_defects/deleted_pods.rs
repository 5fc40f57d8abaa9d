//! Tests network namespaces that outlive their pods. The agent frees the address of a deleted pod, but not if the node
//! may have been cut off from the API server.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{NODE, SingleNode};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::{end, has_assignment, metrics_endpoint, restart, scaled};

/// The time scale of these tests. The agent frees an address only after two reads have shown that the pod is gone. At
/// this scale, the second read comes 15 s instead of five minutes after the first.
pub const SCALE: &str = "0.05";
/// The number of stale checks for which the test waits, each in a different second. So the wait is longer than the 15 s
/// between the two reads that find a pod gone.
const STALE_CHECKS: u32 = 20;
/// The maximum time for the agent to find twice that a pod is gone, and then to free the pod's address.
pub const RELEASE_TIMEOUT: Duration = Duration::from_mins(1);

pub async fn node_is_ready(node: &SingleNode, ready: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(node.client.clone());
    let status = json!({"status": {"conditions": [
        {"type": "Ready", "status": ready, "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]}});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

pub async fn freed(node: &mut SingleNode) -> Result<()> {
    node_is_ready(node, "True").await?;
    restart(node, &scaled(SCALE)).await?;
    let names = ["leaked-mount", "orphaned-socket", "alive"];
    let mut pods = Vec::new();
    for name in names {
        let pod = node.kube_pod("default", name, None).await?;
        node.add(&pod)?;
        pods.push(pod);
    }
    let ids: Vec<&str> = pods.iter().map(|pod| pod.container_id.as_str()).collect();
    node.await_assignments(&ids, RELEASE_TIMEOUT).await?;

    // An open file descriptor keeps one network namespace alive, and a socket keeps the other. Delete both pods by
    // force while the node is not Ready.
    let mount = pods[0].namespace.clone();
    let socket = pods[1].namespace.run(|| TcpListener::bind("127.0.0.1:0"))??;
    node_is_ready(node, "False").await?;
    for name in ["leaked-mount", "orphaned-socket"] {
        node.delete_kube_pod("default", name).await?;
    }
    let alive = pods.pop().context("the test has created no pod")?;
    let leaked: Vec<String> = pods.iter().map(|pod| pod.container_id.clone()).collect();
    drop(pods);
    metrics_endpoint::await_stale_checks(node, STALE_CHECKS).await?;
    for id in &leaked {
        let there = node.assignments().await?.iter().any(|one| one.spec.container_id == *id);
        ensure!(there, "the agent freed the address of a pod that was deleted while the node was not Ready");
    }

    node_is_ready(node, "True").await?;
    wait_until("the agent has freed the addresses of both deleted pods", RELEASE_TIMEOUT, || async {
        let assignments = node.assignments().await?;
        let left = assignments.iter().filter(|one| leaked.contains(&one.spec.container_id)).count();
        let links = node.attachments()?.len();
        Ok(check(left == 0 && links == 1, || {
            format!("{left} assignments of deleted pods still exist, and the node has {links} pod links")
        }))
    })
    .await
    .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))?;
    drop((mount, socket));
    has_assignment(node, &alive).await?;
    restart(node, &[]).await?;
    end(node, vec![alive], &["alive"]).await
}
