//! Resync alone: every watch event is dropped, and all is right after one resync.

use std::time::Duration;

use anyhow::Result;
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::lone_node::{LoneNode, NODE, NODE_IPV4, PATIENCE};
use bobbin_e2e::until::{so, until};
use serde_json::json;

use super::direct::{carries, set_node_address};
use super::scene::{Scene, delete_record, recorded_for};
use super::{AT_ONCE, scaled, with_flags};

/// Shortens the interval of the resync to 9 s.
const SCALE: f64 = 0.01;
/// The longest time between two resyncs here, one and a half times 9 s; and two seconds for the work.
const RESYNC: Duration = Duration::from_millis(15_500);

async fn often(node: &mut LoneNode) -> Result<()> {
    let flags = [scaled(SCALE)];
    with_flags(node, &flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

pub async fn without_events(node: &mut LoneNode) -> Result<()> {
    often(node).await?;
    let mut scene = Scene::begin(node, "deaf", 71, 28, 2, json!({})).await?;
    for _ in 0..2 {
        scene.add(node).await?;
    }
    let (block, address) = (scene.block(node, 0).await?, scene.address(1)?);
    let deaf = node.api()?.inject(Selector::verbs(&["watch"]), Fault::DropEvents);
    delete_record(node, address).await?;
    set_node_address(node, "10.100.0.56").await?;
    block.free(node).await?;
    until("the block is this node's again", RESYNC, || async {
        let owner = block.owner(node).await?;
        Ok(so(owner.as_deref() == Some(NODE), || format!("it is {owner:?}'s")))
    })
    .await?;
    until("the record is there again", AT_ONCE, || async {
        let record = recorded_for(node, address).await?;
        Ok(so(record.is_some(), || "none".to_owned()))
    })
    .await?;
    carries(node, &block, "10.100.0.56", AT_ONCE).await?;
    set_node_address(node, NODE_IPV4).await?;
    carries(node, &block, NODE_IPV4, RESYNC).await?;
    drop(deaf);
    with_flags(node, &[]).await?;
    scene.end(node).await
}

pub async fn pool(node: &mut LoneNode) -> Result<()> {
    often(node).await?;
    let mut scene = Scene::begin(node, "deaf-pool", 72, 29, 1, json!({})).await?;
    let pod = scene.add(node).await?;
    let block = scene.block(node, pod).await?;
    let deaf = node.api()?.inject(Selector::verbs(&["watch"]), Fault::DropEvents);
    scene.drain(node, true).await?;
    node.del(&scene.pods[pod])?;
    node.await_records(&[], PATIENCE).await?;
    until("the empty block of the draining pool goes back", RESYNC, || async {
        let owner = block.owner(node).await?;
        Ok(so(owner.is_none(), || format!("it is {owner:?}'s")))
    })
    .await?;
    drop(deaf);
    with_flags(node, &[]).await?;
    scene.end(node).await
}
