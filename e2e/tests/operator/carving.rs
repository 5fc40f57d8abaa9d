//! Carving: a small stock ahead of demand, refilled, of the right blocks.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bobbin_crds::pool::condition;
use bobbin_e2e::until::{so, until};
use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{SOON, World, accepted, says};

pub fn tests(world: &World) -> Vec<Trial> {
    vec![
        world.test("a_pool_gets_a_small_stock_of_free_blocks_and_not_all_of_it", small_stock),
        world.test("a_used_block_is_replaced_at_once", refill),
        world.test("an_appended_subnet_is_carved", append),
        world.test("wholly_reserved_blocks_are_passed_over", reserved),
        world.test("the_largest_ipv6_pool_is_carved_a_little_and_its_counts_stop", largest),
        world.test("a_pool_of_one_block_is_carved", one_block),
        world.test("a_block_that_is_given_back_loses_its_finalizer", given_back),
        world.test("addresses_that_an_earlier_pool_left_are_not_carved_over", left_over),
    ]
}

async fn small_stock(world: World) -> Result<()> {
    world.pool("stock", json!({"subnets": [{"ipv4": "10.1.0.0/16", "ipv6": "fd01::/112"}]})).await?;
    let status = world.until_ready("stock").await?;
    let blocks = world.blocks_of("stock").await?;
    ensure!(blocks.len() >= 8 && blocks.len() < 512, "{} blocks are no small stock", blocks.len());
    let first = &blocks[0];
    ensure!(first.metadata.name.as_deref() == Some("stock-0"), "{:?}", first.metadata.name);
    ensure!(first.spec.ipv4.as_deref() == Some("10.1.0.0/27") && first.spec.ipv6.as_deref() == Some("fd01::/123"));
    ensure!(first.metadata.owner_references.is_none() && first.metadata.finalizers.is_none(), "{:?}", first.metadata);
    ensure!(status.blocks.total == 2048 && status.blocks.free == 2048 && status.free == 65536, "{status:?}");
    Ok(())
}

async fn refill(world: World) -> Result<()> {
    world.pool("refill", json!({"subnets": [{"ipv4": "10.2.0.0/16"}]})).await?;
    world.until_ready("refill").await?;
    // Nodes of other tests come and go: the stock that is here is the measure.
    for round in 0..5 {
        let before = world.blocks_of("refill").await?.len();
        world.claim(&format!("refill-{round}"), "a-node", "a-uid").await?;
        let start = Instant::now();
        until("another block is carved", SOON, || async {
            let now = world.blocks_of("refill").await?.len();
            Ok(so(now > before, || format!("{now} blocks")))
        })
        .await?;
        // The bar is a second; the machine is busy with other tests.
        ensure!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    }
    Ok(())
}

async fn append(world: World) -> Result<()> {
    world.pool("append", json!({"subnets": [{"ipv4": "10.3.0.0/27"}]})).await?;
    world.until_ready("append").await?;
    world.claim("append-0", "a-node", "a-uid").await?;
    world
        .until_status("append", "has no free block", SOON, |status| {
            status.free_window.is_none() && status.blocks.free == 0
        })
        .await?;
    world.change("append", json!({"subnets": [{"ipv4": "10.3.0.0/27"}, {"ipv4": "10.3.1.0/27"}]})).await?;
    let more = |status: &bobbin_crds::AddressPoolStatus| accepted(status) == 2 && status.free_window.is_some();
    world.until_status("append", "has a free block again", SOON, more).await?;
    let blocks = world.blocks_of("append").await?;
    ensure!(blocks.len() == 2 && blocks[1].spec.ipv4.as_deref() == Some("10.3.1.0/27"), "{blocks:?}");
    Ok(())
}

async fn reserved(world: World) -> Result<()> {
    let spec = json!({"subnets": [{"ipv4": "10.4.0.0/25"}], "reserved": ["10.4.0.0/27", "10.4.0.64", "10.4.0.96/28"]});
    world.pool("reserved", spec).await?;
    let status = world.until_ready("reserved").await?;
    let indices: Vec<i64> = world.blocks_of("reserved").await?.iter().map(|block| block.spec.index).collect();
    ensure!(indices == [1, 2, 3], "{indices:?}");
    let counts = status.addresses.ipv4.unwrap_or_default();
    ensure!((counts.total, counts.reserved, counts.free) == (128, 32 + 1 + 16, 79), "{counts:?}");
    ensure!(status.blocks.total == 4 && status.blocks.free == 3, "{:?}", status.blocks);
    // Reserved later: the free block goes.
    world.change("reserved", json!({"reserved": ["10.4.0.0/26", "10.4.0.64", "10.4.0.96/28"]})).await?;
    until("block 1 is gone", SOON, || async {
        let blocks = world.blocks_of("reserved").await?;
        Ok(so(blocks.len() == 2 && blocks[0].spec.index == 2, || format!("{} blocks", blocks.len())))
    })
    .await
}

async fn largest(world: World) -> Result<()> {
    world.pool("largest", json!({"subnets": [{"ipv6": "fd05::/32"}], "blockSizeBits": 16})).await?;
    let status = world.until_ready("largest").await?;
    let counts = status.addresses.ipv6.unwrap_or_default();
    ensure!(
        counts.total == (1 << 53) - 1 && counts.free == (1 << 53) - 1 && status.addresses.ipv4.is_none(),
        "{status:?}"
    );
    ensure!(status.blocks.total == 1 << 40, "{:?}", status.blocks);
    let blocks = world.blocks_of("largest").await?;
    ensure!(blocks.len() < 512 && blocks[1].spec.ipv6.as_deref() == Some("fd05::1:0/112"), "{:?}", blocks[1].spec);
    Ok(())
}

async fn one_block(world: World) -> Result<()> {
    world.pool("one", json!({"subnets": [{"ipv4": "10.6.0.1/32", "ipv6": "fd06::1/128"}], "blockSizeBits": 0})).await?;
    let status = world.until_ready("one").await?;
    ensure!(
        status.free == 1 && status.blocks.total == 1 && says(&status, condition::EXHAUSTED) == "False",
        "{status:?}"
    );
    world.claim("one-0", "a-node", "a-uid").await?;
    world.record("10.6.0.1", "one-0", "a-node").await?;
    world
        .until_status("one", "is exhausted", SOON, |status| {
            says(status, condition::EXHAUSTED) == "True" && status.used == 1
        })
        .await?;
    world.forget("10.6.0.1").await?;
    world.give_back("one-0").await?;
    world
        .until_status("one", "has its block again", SOON, |status| {
            says(status, condition::EXHAUSTED) == "False" && status.free_window.is_some()
        })
        .await?;
    Ok(())
}

async fn given_back(world: World) -> Result<()> {
    world.pool("back", json!({"subnets": [{"ipv4": "10.7.0.0/24"}]})).await?;
    world.until_ready("back").await?;
    world.claim("back-3", "a-node", "a-uid").await?;
    world.give_back("back-3").await?;
    let block = world.until_free("back-3", SOON).await?;
    ensure!(block.spec.free_since.is_some(), "{:?}", block.spec);
    Ok(())
}

async fn left_over(world: World) -> Result<()> {
    world.record("10.8.0.70", "earlier-2", "a-node").await?;
    // The record may not have reached the operators' watches: the fresh look finds it all the same.
    world.pool("left", json!({"subnets": [{"ipv4": "10.8.0.0/24"}]})).await?;
    let status = world
        .until_status("left", "says what is in its way", SOON, |status| {
            says(status, condition::READY) == "False"
                && !status.conditions[0].message.is_empty()
                && status.conditions[0].reason == "Overlaps"
        })
        .await?;
    ensure!(status.conditions[0].message.contains("10.8.0.70"), "{:?}", status.conditions);
    ensure!(world.blocks_of("left").await?.is_empty(), "it was carved all the same");
    world.forget("10.8.0.70").await?;
    world.until_ready("left").await?;
    Ok(())
}
