//! A node with running pods loses contact with the API server. Meanwhile its Node object is deleted and created again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, NODE, Sandbox, SingleNode, SingleNodeOptions};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::{add_at_once, options};

/// Starts a separate node for one test. The operator of the node has this grace period for deleted nodes.
async fn start(grace_period: &str) -> Result<SingleNode> {
    let operator = vec![format!("--node-grace-period={grace_period}")];
    let mut node = SingleNode::start(SingleNodeOptions { operator, ..options() }).await?;
    node.apply_pool("default", json!({"subnets": [{"ipv4": "10.64.0.0/16", "ipv6": "fd00:64::/112"}]})).await?;
    node.start_agent().await?;
    Ok(node)
}

/// Maps the name of each assignment to its UID.
async fn assignments(node: &SingleNode) -> Result<BTreeMap<String, String>> {
    let all = node.assignments().await?.into_iter();
    Ok(all.filter_map(|one| Some((one.metadata.name?, one.metadata.uid?))).collect())
}

fn addresses_of(pods: &[Sandbox]) -> Result<Vec<Vec<IpAddr>>> {
    pods.iter().map(Sandbox::addresses).collect()
}

async fn delete_node(node: &SingleNode) -> Result<()> {
    Api::<Node>::all(node.client.clone()).delete(NODE, &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until all blocks of the node name the UID of the new Node object.
async fn await_new_uid(node: &SingleNode) -> Result<()> {
    let uid = Api::<Node>::all(node.client.clone()).get(NODE).await?.metadata.uid.context("the Node has no UID")?;
    wait_until("the node's blocks name the UID of the new Node", CONVERGENCE_TIMEOUT, || async {
        let blocks = node.own_blocks("default").await?;
        let new = blocks.iter().filter(|block| block.spec.node_uid.as_ref() == Some(&uid)).count();
        Ok(check(new > 0 && new == blocks.len(), || format!("{new} of {} blocks name the new UID", blocks.len())))
    })
    .await
}

/// Calls ADD for another pod. Checks that all pods have different addresses and that each has its assignment.
async fn serves_one_more(node: &SingleNode, mut pods: Vec<Sandbox>) -> Result<()> {
    pods.extend(add_at_once(node, 1)?);
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    node.await_assignments_of(&pods).await?;
    node.remove_pods(pods).await
}

pub async fn within_grace(_shared: &mut SingleNode) -> Result<()> {
    let node = start("10m").await?;
    let pods = add_at_once(&node, 10)?;
    node.await_assignments_of(&pods).await?;
    let before = assignments(&node).await?;
    node.proxy.set(NetworkFault::BlackHole);
    delete_node(&node).await?;
    node.make_node().await?;
    node.proxy.set(NetworkFault::None);
    await_new_uid(&node).await?;
    let after = assignments(&node).await?;
    ensure!(after == before, "the assignments have changed from {before:?} to {after:?}");
    serves_one_more(&node, pods).await
}

pub async fn after_grace(_shared: &mut SingleNode) -> Result<()> {
    let node = start("2s").await?;
    let pods = add_at_once(&node, 10)?;
    node.await_assignments_of(&pods).await?;
    let addresses = addresses_of(&pods)?;
    node.proxy.set(NetworkFault::BlackHole);
    delete_node(&node).await?;
    wait_until(
        "the operator has released the node's blocks and deleted its assignments",
        Duration::from_secs(30),
        || async {
            let (blocks, assignments) = (node.own_blocks("default").await?.len(), node.assignments().await?.len());
            Ok(check(blocks == 0 && assignments == 0, || {
                format!("the node still has {blocks} blocks and {assignments} assignments")
            }))
        },
    )
    .await?;
    ensure!(
        addresses_of(&pods)? == addresses,
        "pods lost their addresses while the node had no contact with the API server"
    );
    node.make_node().await?;
    node.proxy.set(NetworkFault::None);
    node.await_assignments_of(&pods).await?;
    await_new_uid(&node).await?;
    ensure!(
        addresses_of(&pods)? == addresses,
        "pods lost their addresses when the node had contact with the API server again"
    );
    serves_one_more(&node, pods).await
}
