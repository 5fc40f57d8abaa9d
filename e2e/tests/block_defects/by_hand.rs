//! What an administrator does by hand: deletes a record, a pool, a block.

use anyhow::{Result, ensure};
use bobbin_e2e::lone_node::{LoneNode, PATIENCE};
use bobbin_e2e::until::{so, until};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::AT_ONCE;
use super::scene::{Scene, answered, blocks, delete_record, node_is_warned, pools, recorded_for};

pub async fn deleted_record(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "by-hand", 61, 28, 2, json!({})).await?;
    let pod = scene.add(node).await?;
    let address = scene.address(pod)?;
    delete_record(node, address).await?;
    until("the record is there again", AT_ONCE, || async {
        let record = recorded_for(node, address).await?;
        Ok(so(record.as_ref() == Some(&scene.pods[pod].container_id), || format!("the record is {record:?}")))
    })
    .await?;
    scene.end(node).await
}

pub async fn removed_pool(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "forced", 62, 28, 2, json!({})).await?;
    let pod = scene.add(node).await?;
    let block = scene.block(node, pod).await?;
    pools(node).delete("forced", &DeleteParams::default()).await?;
    until("the pool is gone", PATIENCE, || async {
        if pools(node).get_opt("forced").await?.is_none() {
            return Ok(so(true, String::new));
        }
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        pools(node).patch("forced", &PatchParams::default(), &patch).await?;
        Ok(so(false, || "it is there".to_owned()))
    })
    .await?;
    ensure!(block.is_exported(node)?, "the block of a pod that lives is not exported");
    node.del(&scene.pods[pod])?;
    until("the block has gone back and is not exported", AT_ONCE, || async {
        let (owner, exported) = (block.owner(node).await?, block.is_exported(node)?);
        Ok(so(owner.is_none() && !exported, || format!("it is {owner:?}'s, exported {exported}")))
    })
    .await?;
    scene.end(node).await
}

pub async fn deleted_block(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "deleted", 63, 28, 2, json!({})).await?;
    let pod = scene.add(node).await?;
    let block = scene.block(node, pod).await?;
    let mark = node.api()?.mark();
    blocks(node).delete(&block.name, &DeleteParams::default()).await?;
    block.departure_is_told(node, mark).await?;
    let next = scene.pod(node).await?;
    let answer = node.call(&scene.pods[next].call("ADD"))?;
    if let Some(address) = answered(&answer)? {
        ensure!(!block.range.contains(&address), "block {} is being deleted and gave out {address}", block.name);
    }
    node_is_warned(node, &[&block.name]).await?;
    node.del(&scene.pods[pod])?;
    let uid = block.get(node).await?.and_then(|block| block.metadata.uid);
    until("the deleted block is gone", PATIENCE, || async {
        let now = block.get(node).await?.and_then(|block| block.metadata.uid);
        Ok(so(now.is_none() || now != uid, || "it is there".to_owned()))
    })
    .await?;
    scene.end(node).await
}
