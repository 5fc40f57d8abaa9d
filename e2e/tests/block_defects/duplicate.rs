//! Addresses of this node's block that the other node has a record of.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::lone_node::{LoneNode, PATIENCE};
use bobbin_e2e::proxy::Weather;
use bobbin_e2e::until::{so, until};
use serde_json::json;

use super::scene::{READS, Scene, answered, delete_record, is_saved, node_is_warned};
use super::{patience, with_flags};

/// A pool of two addresses: one is this node's first pod's, the other is recorded for the other node.
async fn one_recorded(node: &mut LoneNode, pool: &'static str, third: u8) -> Result<(Scene, std::net::IpAddr)> {
    with_flags(node, &["--confirm-wait=5s"]).await?;
    let mut scene = Scene::begin(node, pool, third, 31, 1, json!({})).await?;
    scene.add(node).await?;
    let taken = scene.address(0)?;
    let recorded = scene.block(node, 0).await?.record_others(node, pool, &[taken], 0).await?[0];
    let next = scene.pod(node).await?;
    is_saved(node, &scene.name_of(next)).await?;
    // An agent that has just started waits for the answer to the record, as long as no read proves its block.
    let held = node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest);
    node.kill_agent();
    node.start_agent_only()?;
    node.await_agent(PATIENCE).await?;
    let error = node.call(&scene.pods[next].call("ADD"))?.error()?;
    drop(held);
    ensure!(error.code == 11, "{error:?}");
    node.del(&scene.pods[next])?;
    node_is_warned(node, &[&recorded.to_string(), "n9"]).await?;
    Ok((scene, recorded))
}

pub async fn comes_back(node: &mut LoneNode) -> Result<()> {
    let (scene, recorded) = one_recorded(node, "comes-back", 41).await?;
    delete_record(node, recorded).await?;
    // The record is not of this node, so no watch tells of its end. Records of passed-over addresses are read once a minute.
    let within = patience(Duration::from_mins(2));
    until("the runtime's next try gets the address", within, || async {
        let answer = node.call(&scene.pods[1].call("ADD"))?;
        if answer.exit != 0 {
            node.del(&scene.pods[1])?;
        }
        Ok(so(answered(&answer)? == Some(recorded), || answer.stdout.clone()))
    })
    .await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

pub async fn after_restart(node: &mut LoneNode) -> Result<()> {
    let (scene, recorded) = one_recorded(node, "stays-away", 42).await?;
    node.kill_agent();
    node.proxy.set(Weather::Refuse);
    node.start_agent().await?;
    let answer = node.call(&scene.pods[1].call("ADD"))?;
    ensure!(answered(&answer)?.is_none(), "after a restart the ADD answered {recorded}, which n9 has a record of");
    node.proxy.set(Weather::Healthy);
    with_flags(node, &[]).await?;
    scene.end(node).await
}
