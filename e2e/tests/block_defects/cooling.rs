//! Blocks whose addresses still cool.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::lone_node::{LoneNode, PATIENCE};
use bobbin_e2e::until::{Look, so, until};
use serde_json::json;

use super::scene::{Block, Scene, now};

/// Sets `freeSince` of all blocks of a pool.
async fn free_since(node: &LoneNode, pool: &str, time: &str) -> Result<Vec<Block>> {
    let mut all = Vec::new();
    for block in node.blocks().await?.into_iter().filter(|block| block.spec.pool_name == pool) {
        let range = block.spec.ipv4.as_deref().context("no range")?.parse()?;
        let block = Block { name: block.metadata.name.unwrap_or_default(), range };
        block.patch(node, json!({"freeSince": time})).await?;
        all.push(block);
    }
    Ok(all)
}

pub async fn one_block(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "all-cool", 31, 29, 1, json!({"cooldownSeconds": 300})).await?;
    let cooling = free_since(node, scene.pool, &now()).await?;
    ensure!(cooling.len() == 4, "{cooling:?}");
    scene.add(node).await?;
    let own: Vec<_> = node.own_blocks(scene.pool).await?.into_iter().filter_map(|block| block.metadata.name).collect();
    ensure!(own.len() == 1, "for one pod the node claimed {} of 4 cooling blocks: {own:?}", own.len());
    scene.end(node).await
}

pub async fn unused_keeps_its_time(node: &mut LoneNode) -> Result<()> {
    const LONG_AGO: &str = "2026-01-01T00:00:00.000000Z";
    let mut scene = Scene::begin(node, "unused", 32, 29, 1, json!({})).await?;
    free_since(node, scene.pool, LONG_AGO).await?;
    for _ in 0..2 {
        scene.add(node).await?;
    }
    let used = scene.block(node, 0).await?;
    let spare = until("the node claims a spare", PATIENCE, || async {
        let own = node.own_blocks("unused").await?;
        let spare = own.into_iter().find(|block| block.metadata.name.as_deref() != Some(&used.name));
        Ok(spare.map_or_else(|| Look::NotYet("none".to_owned()), Look::Yes))
    })
    .await?;
    let range = spare.spec.ipv4.as_deref().context("no range")?.parse()?;
    let spare = Block { name: spare.metadata.name.unwrap_or_default(), range };
    // It would delete the free block of a draining pool.
    node.stop_operator();
    scene.drain(node, true).await?;
    until("the spare goes back", PATIENCE, || async {
        let owner = spare.owner(node).await?;
        Ok(so(owner.is_none(), || format!("it is {owner:?}'s")))
    })
    .await?;
    let since = spare.get(node).await?.and_then(|block| block.spec.free_since).map(|time| time.0.to_string());
    ensure!(
        since.as_deref() == Some("2026-01-01T00:00:00Z"),
        "the unused block {} was free since {LONG_AGO} and is now free since {since:?}",
        spare.name
    );
    node.start_operator()?;
    scene.end(node).await
}
