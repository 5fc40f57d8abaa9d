//! An administrator deletes an assignment, a pool or a block.

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
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
            format!("the assignment names the container {assignment:?}")
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
        Ok(check(false, || "the object exists".to_owned()))
    })
    .await?;
    ensure!(block.is_exported(node)?, "the block of a running pod is not exported");
    node.del(&fixture.pods[pod])?;
    wait_until("the node has released the block and does not export it", IMMEDIATE_TIMEOUT, || async {
        let (owner, exported) = (block.owner(node).await?, block.is_exported(node)?);
        Ok(check(owner.is_none() && !exported, || {
            format!("the block's owner is {owner:?}, and it is exported: {exported}")
        }))
    })
    .await?;
    fixture.end(node).await
}

pub async fn deleted_block(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "deleted", 63, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    blocks(node).delete(&block.name, &DeleteParams::default()).await?;
    // The agent publishes an event about the block after its watch has shown the deletion.
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
        Ok(check(now.is_none() || now != uid, || "the object exists".to_owned()))
    })
    .await?;
    fixture.end(node).await
}

/// Blocks name this pool, but their addresses are outside of the pool's subnets. A late write of an earlier leader can
/// leave such blocks.
pub async fn block_outside_of_pool(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "outside", 204, 28, 2, json!({})).await?;
    node.stop_operator();
    let of_pool = ListParams::default().fields("spec.poolName=outside");
    blocks(node).delete_collection(&DeleteParams::default(), &of_pool).await?;
    for index in 0..4 {
        let range = format!("10.90.205.{}/30", index * 4);
        let spec = json!({"poolName": "outside", "index": index, "ipv4": range});
        let block = json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressBlock", "metadata": {"name": format!("outside-{index}")}, "spec": spec});
        blocks(node).create(&PostParams::default(), &serde_json::from_value(block)?).await?;
    }
    let pod = fixture.pod(node).await?;
    let answer = node.call(&fixture.pods[pod].call("ADD"))?;
    node.start_operator()?;
    ensure!(answered(&answer)?.is_none(), "the pod got an address outside of the pool: {}", answer.stdout);
    wait_until("the pod gets an address of the pool", CONVERGENCE_TIMEOUT, || async {
        let address = answered(&node.call(&fixture.pods[pod].call("ADD"))?)?;
        Ok(check(address.is_some_and(|address| address.to_string().starts_with("10.90.204.")), || {
            format!("{address:?}")
        }))
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
    wait_until("the block exists again, and this node owns it", IMMEDIATE_TIMEOUT, || async {
        let now = block.get(node).await?;
        let owner = now.as_ref().and_then(|block| block.spec.node_name.clone());
        let is_new = now.is_some_and(|block| block.metadata.uid != uid);
        Ok(check(is_new && owner.as_deref() == Some(NODE), || {
            format!("the owner is {owner:?}, and the block is new: {is_new}")
        }))
    })
    .await?;
    let holder = assignment_holder(node, address).await?;
    ensure!(
        holder.as_ref() == Some(&fixture.pods[pod].container_id),
        "the assignment of {address} names the container {holder:?}"
    );
    // New pods get addresses of the block again.
    for _ in 0..3 {
        let next = fixture.add(node).await?;
        ensure!(fixture.address(next)? != address, "two pods have the address {address}");
    }
    ensure!(block.is_exported(node)?, "the block is not exported");
    fixture.end(node).await
}
