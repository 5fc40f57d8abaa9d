//! An administrator deletes an assignment, a pool or a block.

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::IMMEDIATE_TIMEOUT;
use super::fixture::{PoolFixture, answered, assignment_holder, await_node_warning, blocks, delete_assignment, pools};

pub async fn deleted_assignment(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "by-hand", 61, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let address = fixture.address(pod)?;
    delete_assignment(node, address).await?;
    wait_until("the assignment exists again", IMMEDIATE_TIMEOUT, || async {
        let assignment = assignment_holder(node, address).await?;
        Ok(check(assignment.as_ref() == Some(&fixture.pods[pod].container_id), || {
            format!("the assignment is {assignment:?}")
        }))
    })
    .await?;
    fixture.end(node).await
}

pub async fn removed_pool(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "forced", 62, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    pools(node).delete("forced", &DeleteParams::default()).await?;
    wait_until("the pool is gone", WAIT_TIMEOUT, || async {
        if pools(node).get_opt("forced").await?.is_none() {
            return Ok(check(true, String::new));
        }
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        pools(node).patch("forced", &PatchParams::default(), &patch).await?;
        Ok(check(false, || "it exists".to_owned()))
    })
    .await?;
    ensure!(block.is_exported(node)?, "the block of a pod that lives is not exported");
    node.del(&fixture.pods[pod])?;
    wait_until("the node has released the block and does not export it", IMMEDIATE_TIMEOUT, || async {
        let (owner, exported) = (block.owner(node).await?, block.is_exported(node)?);
        Ok(check(owner.is_none() && !exported, || format!("owner {owner:?}, exported {exported}")))
    })
    .await?;
    fixture.end(node).await
}

pub async fn deleted_block(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "deleted", 63, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    blocks(node).delete(&block.name, &DeleteParams::default()).await?;
    // The agent publishes this event when its watch has shown the deletion.
    await_node_warning(node, &[&block.name]).await?;
    let next = fixture.pod(node).await?;
    let answer = node.call(&fixture.pods[next].call("ADD"))?;
    if let Some(address) = answered(&answer)? {
        ensure!(
            !block.range.contains(&address),
            "block {} is being deleted, but the ADD got its address {address}",
            block.name
        );
    }
    node.del(&fixture.pods[pod])?;
    let uid = block.get(node).await?.and_then(|block| block.metadata.uid);
    wait_until("the deleted block is gone", WAIT_TIMEOUT, || async {
        let now = block.get(node).await?.and_then(|block| block.metadata.uid);
        Ok(check(now.is_none() || now != uid, || "it exists".to_owned()))
    })
    .await?;
    fixture.end(node).await
}

pub async fn vanished_block(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "vanished", 203, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let (block, address) = (fixture.block(node, pod).await?, fixture.address(pod)?);
    let uid = block.get(node).await?.and_then(|block| block.metadata.uid);
    blocks(node).delete(&block.name, &DeleteParams::default()).await?;
    let unprotected = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    blocks(node).patch(&block.name, &PatchParams::default(), &unprotected).await?;
    wait_until("the block exists again, claimed for this node", IMMEDIATE_TIMEOUT, || async {
        let now = block.get(node).await?;
        let owner = now.as_ref().and_then(|block| block.spec.node_name.clone());
        let is_new = now.is_some_and(|block| block.metadata.uid != uid);
        Ok(check(is_new && owner.as_deref() == Some(NODE), || format!("owner {owner:?}, new: {is_new}")))
    })
    .await?;
    let holder = assignment_holder(node, address).await?;
    ensure!(holder.as_ref() == Some(&fixture.pods[pod].container_id), "the assignment of {address} is {holder:?}");
    // The block serves again.
    for _ in 0..3 {
        let next = fixture.add(node).await?;
        ensure!(fixture.address(next)? != address, "{address} has two pods");
    }
    ensure!(block.is_exported(node)?, "the block is not exported");
    fixture.end(node).await
}
