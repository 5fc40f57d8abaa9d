//! Addresses of this node's block for which the second node, `n9`, has an assignment.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::fixture::{PoolFixture, READS, answered, await_checkpointed, await_node_warning, delete_assignment};
use super::{scaled_timeout, with_flags};

/// A pool of two addresses: this node's first pod has one, and the other node has an assignment of the other.
async fn one_assigned_elsewhere(
    node: &mut SingleNode,
    pool: &'static str,
    third: u8,
) -> Result<(PoolFixture, std::net::IpAddr)> {
    with_flags(node, &["--confirm-wait=5s"]).await?;
    let mut fixture = PoolFixture::create(node, pool, third, 31, 1, json!({})).await?;
    fixture.add(node).await?;
    let taken = fixture.address(0)?;
    let assigned_elsewhere = fixture.block(node, 0).await?.assign_to_other_node(node, pool, &[taken], 0).await?[0];
    let next = fixture.pod(node).await?;
    await_checkpointed(node, &fixture.name_of(next)).await?;
    // While no read proves its block, a newly started agent waits for the answer to the create of its assignment.
    let held = node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest);
    node.kill_agent();
    node.start_agent_only()?;
    node.await_agent(WAIT_TIMEOUT).await?;
    let error = node.call(&fixture.pods[next].call("ADD"))?.error()?;
    drop(held);
    ensure!(error.code == 11, "{error:?}");
    node.del(&fixture.pods[next])?;
    await_node_warning(node, &[&assigned_elsewhere.to_string(), "n9"]).await?;
    Ok((fixture, assigned_elsewhere))
}

pub async fn comes_back(node: &mut SingleNode) -> Result<()> {
    let (fixture, assigned_elsewhere) = one_assigned_elsewhere(node, "comes-back", 41).await?;
    delete_assignment(node, assigned_elsewhere).await?;
    // No watch reports the end of another node's assignment. The agent reads the assignments of excluded addresses
    // once a minute.
    let within = scaled_timeout(Duration::from_mins(2));
    wait_until("the runtime's next try gets the address", within, || async {
        let answer = node.call(&fixture.pods[1].call("ADD"))?;
        if answer.exit != 0 {
            node.del(&fixture.pods[1])?;
        }
        Ok(check(answered(&answer)? == Some(assigned_elsewhere), || answer.stdout.clone()))
    })
    .await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn after_restart(node: &mut SingleNode) -> Result<()> {
    let (fixture, assigned_elsewhere) = one_assigned_elsewhere(node, "stays-away", 42).await?;
    node.kill_agent();
    node.proxy.set(NetworkFault::Refuse);
    node.start_agent().await?;
    let answer = node.call(&fixture.pods[1].call("ADD"))?;
    ensure!(
        answered(&answer)?.is_none(),
        "after a restart the ADD got {assigned_elsewhere}, but n9 has an assignment of it"
    );
    node.proxy.set(NetworkFault::None);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
