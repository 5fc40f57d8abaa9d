//! A deleted node: what it owned is free, when it may be and not before.

use anyhow::{Result, ensure};
use bobbin_e2e::until::{so, until};
use k8s_openapi::jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::{NODE_GONE, SOON, World};

pub fn tests(world: &World) -> Vec<Trial> {
    vec![
        world.test(
            "a_deleted_nodes_addresses_and_blocks_are_free_after_the_wait_and_what_it_gave_up_stays_as_it_is",
            after_the_wait,
        ),
        world.test("what_a_deleted_node_owned_is_free_at_once_if_it_was_out_of_service", at_once),
        world.test("a_node_made_anew_within_the_wait_keeps_what_it_owned", made_anew),
    ]
}

async fn after_the_wait(world: World) -> Result<()> {
    world.pool("nodes", json!({"subnets": [{"ipv4": "10.60.0.0/16"}]})).await?;
    world.until_ready("nodes").await?;
    let mut uids = Vec::new();
    for (number, node) in ["gave-up", "witness-1", "lost"].into_iter().enumerate() {
        let uid = world.node(node).await?;
        world.claim(&format!("nodes-{number}"), node, &uid).await?;
        uids.push(uid);
    }
    world.record("10.60.0.65", "nodes-2", "lost").await?;
    world.record("10.60.0.66", "nodes-2", "lost").await?;
    world.give_back("nodes-0").await?;
    let given_up = world.until_free("nodes-0", SOON).await?;
    let deleted = Timestamp::now();
    for node in ["gave-up", "lost"] {
        world.delete_node(node).await?;
    }
    let block = world.until_free("nodes-2", NODE_GONE + SOON).await?;
    let waited = block.spec.free_since.as_ref().is_some_and(|time| time.0 >= deleted + NODE_GONE);
    ensure!(waited && block.spec.node_uid.is_none(), "the block was free before the wait was over: {:?}", block.spec);
    for address in ["10.60.0.65", "10.60.0.66"] {
        ensure!(world.assignments()?.get_opt(address).await?.is_none(), "{address} is recorded still");
    }
    let now = world.blocks()?.get("nodes-0").await?;
    ensure!(
        now.metadata.resource_version == given_up.metadata.resource_version,
        "a block that was given up was written again"
    );
    world
        .until_status("nodes", "counts one block", SOON, |status| status.used == 0 && status.blocks.claimed == 1)
        .await?;
    Ok(())
}

async fn at_once(_: World) -> Result<()> {
    // With a wait that no test outlasts: what becomes free did not wait.
    let (_control_plane, world) = World::without_operators().await?;
    let stop = CancellationToken::new();
    world.operator("patient", &["--no-leader-election", "--node-gone-seconds=86400"], stop.clone())?;
    world.pool("nodes", json!({"subnets": [{"ipv4": "10.60.0.0/16"}]})).await?;
    world.until_ready("nodes").await?;
    for (number, node) in ["out", "lost"].into_iter().enumerate() {
        let uid = world.node(node).await?;
        world.claim(&format!("nodes-{number}"), node, &uid).await?;
    }
    world.record("10.60.0.1", "nodes-0", "out").await?;
    world.taint_out_of_service("out").await?;
    for node in ["lost", "out"] {
        world.delete_node(node).await?;
    }
    let block = world.until_free("nodes-0", SOON).await?;
    ensure!(block.spec.free_since.is_some() && block.spec.node_uid.is_none(), "{:?}", block.spec);
    ensure!(world.assignments()?.get_opt("10.60.0.1").await?.is_none(), "a block is free and its address recorded");
    ensure!(world.owner("nodes-1").await? == "lost", "the lost node's block was free before its wait was over");
    stop.cancel();
    Ok(())
}

async fn made_anew(world: World) -> Result<()> {
    world.pool("anew", json!({"subnets": [{"ipv4": "10.61.0.0/16"}]})).await?;
    world.until_ready("anew").await?;
    let old = world.node("anew-node").await?;
    world.node("witness").await.map(|_| ())?;
    world.claim("anew-0", "anew-node", &old).await?;
    world.record("10.61.0.1", "anew-0", "anew-node").await?;
    world.claim("anew-1", "witness", "uid").await?;
    world.delete_node("anew-node").await?;
    world.node("anew-node").await?;
    world.delete_node("witness").await?;
    // Deleted later and free: so the wait of the first would be over, too.
    world.until_free("anew-1", NODE_GONE + SOON).await?;
    until("the node made anew keeps its block and address", SOON, || async {
        let owner = world.owner("anew-0").await?;
        let record = world.assignments()?.get_opt("10.61.0.1").await?;
        Ok(so(owner == "anew-node" && record.is_some(), || owner))
    })
    .await
}
