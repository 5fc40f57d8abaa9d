//! Tests blocks in which released addresses are cooling down.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, check, wait_until};
use serde_json::json;

use super::fixture::{Block, PoolFixture, now};

/// Sets `freeSince` of all blocks of a pool, and returns the blocks.
async fn free_since(node: &SingleNode, pool: &str, time: &str) -> Result<Vec<Block>> {
    let mut all = Vec::new();
    for block in node.blocks().await?.into_iter().filter(|block| block.spec.pool_name == pool) {
        let range = block.spec.ipv4.as_deref().context("no range")?.parse()?;
        let block = Block { name: block.metadata.name.unwrap_or_default(), range };
        block.patch(node, json!({"freeSince": time})).await?;
        all.push(block);
    }
    Ok(all)
}

pub async fn one_block(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "all-cool", 31, 29, 1, json!({"cooldownSeconds": 300})).await?;
    let cooling = free_since(node, fixture.pool, &now()).await?;
    ensure!(cooling.len() == 4, "{cooling:?}");
    fixture.add(node).await?;
    let own: Vec<_> =
        node.own_blocks(fixture.pool).await?.into_iter().filter_map(|block| block.metadata.name).collect();
    ensure!(own.len() == 1, "the node needs one of 4 cooling blocks for its pod, but claimed {}: {own:?}", own.len());
    fixture.end(node).await
}

pub async fn unused_keeps_its_time(node: &mut SingleNode) -> Result<()> {
    const LONG_AGO: &str = "2026-01-01T00:00:00.000000Z";
    let mut fixture = PoolFixture::create(node, "unused", 32, 29, 1, json!({})).await?;
    free_since(node, fixture.pool, LONG_AGO).await?;
    for _ in 0..2 {
        fixture.add(node).await?;
    }
    let used = fixture.block(node, 0).await?;
    let spare = wait_until("the node claims a spare block", WAIT_TIMEOUT, || async {
        let own = node.own_blocks("unused").await?;
        let spare = own.into_iter().find(|block| block.metadata.name.as_deref() != Some(&used.name));
        Ok(spare.map_or_else(|| Poll::Pending("none".to_owned()), Poll::Ready))
    })
    .await?;
    let range = spare.spec.ipv4.as_deref().context("no range")?.parse()?;
    let spare = Block { name: spare.metadata.name.unwrap_or_default(), range };
    // Stop the operator, because it would delete a free block of a draining pool.
    node.stop_operator();
    fixture.drain(node, true).await?;
    wait_until("the node releases the spare block", WAIT_TIMEOUT, || async {
        let owner = spare.owner(node).await?;
        Ok(check(owner.is_none(), || format!("the spare block's owner is {owner:?}")))
    })
    .await?;
    let since = spare.get(node).await?.and_then(|block| block.spec.free_since).map(|time| time.0.to_string());
    ensure!(
        since.as_deref() == Some("2026-01-01T00:00:00Z"),
        "no pod used block {}, so its freeSince must still be {LONG_AGO}, but it is {since:?}",
        spare.name
    );
    node.start_operator()?;
    fixture.end(node).await
}
