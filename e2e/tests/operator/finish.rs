//! The end of a pool: it waits for its last address, and says who holds it.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_crds::FINALIZER;
use bobbin_crds::pool::condition;
use bobbin_e2e::until::{so, until};
use kube::api::{DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{SOON, World, says, why};

pub fn tests(world: &World) -> Vec<Trial> {
    vec![
        world.test("a_deleted_pool_waits_for_its_last_address_and_says_who_holds_it", waits),
        world.test("a_pool_deleted_in_the_foreground_keeps_its_claimed_blocks", foreground),
        world.test("an_unused_pool_goes_at_once_with_its_blocks", unused),
        world.test("a_pool_made_again_under_the_same_name_is_carved_anew", again),
    ]
}

async fn waits(world: World) -> Result<()> {
    world.pool("ending", json!({"subnets": [{"ipv4": "10.50.0.0/24"}]})).await?;
    world.until_ready("ending").await?;
    world.claim("ending-1", "holder-1", "uid-1").await?;
    world.claim("ending-2", "holder-2", "uid-2").await?;
    for address in ["10.50.0.32", "10.50.0.33"] {
        world.record(address, "ending-1", "holder-1").await?;
    }
    world.pools()?.delete("ending", &DeleteParams::default()).await?;
    let told = |status: &bobbin_crds::AddressPoolStatus| {
        why(status, condition::TERMINATING).contains("holder-1 (2)") && says(status, condition::READY) == "False"
    };
    let status = world.until_status("ending", "says who holds it", SOON, told).await?;
    ensure!(why(&status, condition::TERMINATING).contains("2 addresses in 2 claimed blocks"), "{status:?}");
    until("the free blocks are gone, the claimed ones not", SOON, || async {
        let blocks = world.blocks_of("ending").await?;
        Ok(so(blocks.len() == 2, || format!("{} blocks", blocks.len())))
    })
    .await?;
    // holder-1 and holder-2 are no Nodes, so they are taken for gone after a while; before that the pods end.
    for address in ["10.50.0.32", "10.50.0.33"] {
        let _ = world.forget(address).await;
    }
    world
        .give_back("ending-1")
        .await
        .or_else(|error| if error.to_string().contains("NotFound") { Ok(()) } else { Err(error) })?;
    world
        .give_back("ending-2")
        .await
        .or_else(|error| if error.to_string().contains("NotFound") { Ok(()) } else { Err(error) })?;
    world.until_gone("ending").await?;
    ensure!(world.blocks_of("ending").await?.is_empty(), "blocks are left");
    Ok(())
}

async fn foreground(world: World) -> Result<()> {
    let uid = world.node("front-node").await?;
    world.pool("front", json!({"subnets": [{"ipv4": "10.51.0.0/24"}]})).await?;
    world.until_ready("front").await?;
    world.claim("front-0", "front-node", &uid).await?;
    world.record("10.51.0.1", "front-0", "front-node").await?;
    world.pools()?.delete("front", &DeleteParams::foreground()).await?;
    world
        .until_status("front", "says who holds it", SOON, |status| {
            why(status, condition::TERMINATING).contains("front-node (1)")
        })
        .await?;
    until("only the claimed block is left", SOON, || async {
        let blocks = world.blocks_of("front").await?;
        Ok(so(blocks.len() == 1, || format!("{} blocks", blocks.len())))
    })
    .await?;
    let block = world.blocks()?.get("front-0").await?;
    ensure!(block.metadata.deletion_timestamp.is_none() && world.owner("front-0").await? == "front-node", "{block:?}");
    world.forget("10.51.0.1").await?;
    world.give_back("front-0").await?;
    // There is no garbage collector here: its finalizer stays, ours goes.
    until("our finalizer is gone", SOON, || async {
        let finalizers = world.pools()?.get("front").await?.metadata.finalizers.unwrap_or_default();
        Ok(so(finalizers.iter().all(|finalizer| finalizer != FINALIZER), || format!("{finalizers:?}")))
    })
    .await?;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.pools()?.patch("front", &PatchParams::default(), &none).await?;
    world.until_gone("front").await
}

async fn unused(world: World) -> Result<()> {
    world.pool("unused", json!({"subnets": [{"ipv4": "10.52.0.0/24"}]})).await?;
    world.until_ready("unused").await?;
    world.pools()?.delete("unused", &DeleteParams::default()).await?;
    world.until_gone("unused").await?;
    until("no block is left", Duration::from_mins(1), || async {
        let blocks = world.blocks_of("unused").await?;
        Ok(so(blocks.is_empty(), || format!("{} blocks", blocks.len())))
    })
    .await
}

async fn again(world: World) -> Result<()> {
    for subnet in ["10.53.0.0/24", "10.54.0.0/24", "10.53.0.0/25"] {
        world.pool("again", json!({"subnets": [{"ipv4": subnet}]})).await?;
        world.until_ready("again").await?;
        let first = world.blocks_of("again").await?.first().and_then(|block| block.spec.ipv4.clone());
        ensure!(first == Some(subnet.replace("/24", "/27").replace("/25", "/27")), "{first:?} is not of {subnet}");
        world.pools()?.delete("again", &DeleteParams::default()).await?;
        world.until_gone("again").await?;
    }
    Ok(())
}
