//! A block that this node holds is not its own any more: by hand, by a restored snapshot, by another node's claim.

use anyhow::{Result, anyhow, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::lone_node::{LoneNode, NODE, PATIENCE};
use bobbin_e2e::until::{so, until};
use serde_json::json;

use super::scene::{READS, Scene, delete_record, node_is_warned, not_of, recorded_for};
use super::{AT_ONCE, with_flags};

pub async fn claimed_back(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "back", 11, 28, 2, json!({})).await?;
    let pod = scene.add(node).await?;
    let (block, address) = (scene.block(node, pod).await?, scene.address(pod)?);
    block.free(node).await?;
    delete_record(node, address).await?;
    until("the block is this node's again, exported, and its pod is recorded", AT_ONCE, || async {
        let (owner, record) = (block.owner(node).await?, recorded_for(node, address).await?);
        let exported = block.is_exported(node)?;
        let right =
            owner.as_deref() == Some(NODE) && exported && record.as_ref() == Some(&scene.pods[pod].container_id);
        Ok(so(right, || format!("the block is {owner:?}'s, exported {exported}, the record is {record:?}")))
    })
    .await?;
    let next = scene.add(node).await?;
    ensure!(block.range.contains(&scene.address(next)?), "the block does not serve again");
    scene.end(node).await
}

pub async fn taken(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "taken", 12, 28, 2, json!({})).await?;
    let pod = scene.add(node).await?;
    let (block, address) = (scene.block(node, pod).await?, scene.address(pod)?);
    // As a reclaim by the operator leaves it.
    block.hand_over(node).await?;
    delete_record(node, address).await?;
    node_is_warned(node, &["lost", &block.name]).await?;
    until("the pod of the lost block is recorded", AT_ONCE, || async {
        let record = recorded_for(node, address).await?;
        Ok(so(record.as_ref() == Some(&scene.pods[pod].container_id), || format!("the record is {record:?}")))
    })
    .await?;
    let next = scene.pod(node).await?;
    not_of(&node.call(&scene.pods[next].call("ADD"))?, &block)?;
    scene.end(node).await
}

pub async fn two_at_once(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "two", 13, 29, 1, json!({"maxBlocksPerNode": 2})).await?;
    for _ in 0..3 {
        scene.add(node).await?;
    }
    let (first, second) = (scene.block(node, 0).await?, scene.block(node, 2).await?);
    ensure!(first.name != second.name, "three pods are in one block of two");
    let next = scene.pod(node).await?;
    super::scene::is_saved(node, &scene.name_of(next)).await?;
    let held = node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest);
    let mark = node.api()?.mark();
    first.hand_over(node).await?;
    until("the agent reads the first block", PATIENCE, || async {
        let reads = node.api()?.seen(mark, &Selector::verbs(READS).of("addressblocks"));
        Ok(so(!reads.is_empty(), || "no read".to_owned()))
    })
    .await?;
    let mark = node.api()?.mark();
    second.hand_over(node).await?;
    second.departure_is_told(node, mark).await?;
    let answer = node.call(&scene.pods[next].call("ADD"))?;
    drop(held);
    not_of(&answer, &second)?;
    not_of(&answer, &first)?;
    scene.end(node).await
}

pub async fn during_add(node: &mut LoneNode) -> Result<()> {
    // What the kernel does has its own pace.
    with_flags(node, &["--time-scale=1"]).await?;
    let mut scene = Scene::begin(node, "during", 14, 28, 2, json!({})).await?;
    scene.add(node).await?;
    let block = scene.block(node, 0).await?;
    let next = scene.pod(node).await?;
    // Only the threads that wire a pod enter a namespace.
    let slow = node.faults(&["-etrace=setns", "-einject=setns:delay_enter=5000000"]).await?;
    let mark = node.api()?.mark();
    let adding = scene.begin_add(node, next);
    until("the ADD's record is sent", PATIENCE, || async {
        let sent = node.api()?.seen(mark, &Selector::verbs(&["create"]).of("ipassignments"));
        Ok(so(!sent.is_empty(), || "no create".to_owned()))
    })
    .await?;
    let mark = node.api()?.mark();
    block.hand_over(node).await?;
    block.departure_is_told(node, mark).await?;
    node_is_warned(node, &[&block.name]).await?;
    ensure!(!adding.is_finished(), "the ADD was over before its block was lost: the test says nothing");
    let answer = adding.join().map_err(|_| anyhow!("the ADD's thread panicked"))??;
    slow.end(true).await?;
    not_of(&answer, &block)?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}
