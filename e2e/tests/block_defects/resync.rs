//! The proxy drops every watch event. One resync with the API server still corrects the agent's whole state.

use std::time::Duration;

use anyhow::Result;
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::single_node::{NODE, NODE_IPV4, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::direct_routing::{carries, set_node_address};
use super::fixture::{PoolFixture, assignment_holder, delete_assignment};
use super::{scaled, with_flags};

/// The factor that shortens the interval of resyncs to 9 s.
const SCALE: f64 = 0.01;
/// How long the tests wait for the effect of a resync. The agent lengthens its interval of 9 s at random by up to
/// one half. The work of a resync may take another 2 s.
const RESYNC_TIMEOUT: Duration = Duration::from_millis(15_500);

async fn often(node: &mut SingleNode) -> Result<()> {
    let flags = [scaled(SCALE)];
    with_flags(node, &flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

pub async fn without_events(node: &mut SingleNode) -> Result<()> {
    often(node).await?;
    let mut fixture = PoolFixture::create(node, "deaf", 71, 28, 2, json!({})).await?;
    for _ in 0..2 {
        fixture.add(node).await?;
    }
    let (block, address) = (fixture.block(node, 0).await?, fixture.address(1)?);
    let deaf = node.api()?.inject(Selector::verbs(&["watch"]), Fault::DropEvents);
    delete_assignment(node, address).await?;
    set_node_address(node, "10.100.0.56").await?;
    block.free(node).await?;
    wait_until("this node owns the block again", RESYNC_TIMEOUT, || async {
        let owner = block.owner(node).await?;
        Ok(check(owner.as_deref() == Some(NODE), || format!("the block's owner is {owner:?}")))
    })
    .await?;
    wait_until("the assignment exists again", RESYNC_TIMEOUT, || async {
        let assignment = assignment_holder(node, address).await?;
        Ok(check(assignment.is_some(), || "none".to_owned()))
    })
    .await?;
    // The resync that claimed the block may have read the Node before its address changed. In that case the next resync
    // corrects the address in the block.
    carries(node, &block, "10.100.0.56", RESYNC_TIMEOUT).await?;
    set_node_address(node, NODE_IPV4).await?;
    carries(node, &block, NODE_IPV4, RESYNC_TIMEOUT).await?;
    drop(deaf);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn pool(node: &mut SingleNode) -> Result<()> {
    often(node).await?;
    let mut fixture = PoolFixture::create(node, "deaf-pool", 72, 29, 1, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    let deaf = node.api()?.inject(Selector::verbs(&["watch"]), Fault::DropEvents);
    fixture.drain(node, true).await?;
    node.del(&fixture.pods[pod])?;
    node.await_assignments(&[], WAIT_TIMEOUT).await?;
    wait_until("the node releases the empty block of the draining pool", RESYNC_TIMEOUT, || async {
        let owner = block.owner(node).await?;
        Ok(check(owner.is_none(), || format!("the block's owner is {owner:?}")))
    })
    .await?;
    drop(deaf);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
