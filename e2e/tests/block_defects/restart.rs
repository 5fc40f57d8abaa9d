//! Tests agents that are starting. If the API server is reachable, the agent must ask it first whether the node still
//! owns its blocks. During an outage, the agent must serve ADDs without an answer.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{Answer, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::fixture::{Block, PoolFixture, READS, answered, await_checkpointed, await_contact, must_not_be_of};
use super::with_flags;

/// The beginning of the plugin's error when the agent did not answer.
const UNANSWERED: &str = "the Bobbin agent of this node";

/// Repeats an ADD until the agent, which is still starting, answers the ADD.
fn first_add(node: &SingleNode, pod: &Sandbox) -> Result<Answer> {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        let answer = node.call(&pod.call("ADD"))?;
        if !answer.stdout.contains(UNANSWERED) {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("the agent did not answer the ADD: {}", answer.stdout);
        }
    }
}

/// Creates a pool with two pods. The first pod has an address. The second pod has had no ADD yet, but the agent's
/// checkpoint names it. Returns the pool, the first pod's block and the second pod's number.
async fn one_of_two(node: &SingleNode, pool: &'static str, third: u8) -> Result<(PoolFixture, Block, usize)> {
    let mut fixture = PoolFixture::create(node, pool, third, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let block = fixture.block(node, 0).await?;
    let next = fixture.pod(node).await?;
    await_checkpointed(node, &fixture.name_of(next)).await?;
    Ok((fixture, block, next))
}

pub async fn read_first(node: &mut SingleNode) -> Result<()> {
    let (fixture, block, next) = one_of_two(node, "read-first", 21).await?;
    node.kill_agent();
    block.give_to_other_node(node).await?;
    // The API server is healthy, but its answers have a short delay. The first ADD must wait for the agent's first
    // read of blocks. The agent allows a longer wait than this delay.
    let far = Fault::Delay(Duration::from_millis(20));
    let far = node.api()?.inject(Selector::verbs(&["get", "list", "watch"]).of("addressblocks"), far);
    node.set_agent_flags(&["--time-scale=1"]);
    node.start_agent_only()?;
    let answer = first_add(node, &fixture.pods[next])?;
    drop(far);
    must_not_be_of(&answer, &block)?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn assignment_list_fails(node: &mut SingleNode) -> Result<()> {
    let (fixture, block, next) = one_of_two(node, "lists-fail", 22).await?;
    node.kill_agent();
    block.give_to_other_node(node).await?;
    let lists = Selector::verbs(&["list"]).of("ipassignments");
    let failing = node.api()?.inject(lists.clone(), Fault::Refuse(500));
    let mark = node.api()?.mark();
    node.start_agent_only()?;
    wait_until("the agent has failed twice to list its assignments", WAIT_TIMEOUT, || async {
        let tries = node.api()?.observed(mark, &lists).len();
        Ok(check(tries >= 2, || format!("{tries} tries")))
    })
    .await?;
    let answer = first_add(node, &fixture.pods[next])?;
    drop(failing);
    must_not_be_of(&answer, &block)?;
    node.await_agent(WAIT_TIMEOUT).await?;
    fixture.end(node).await
}

pub async fn doubt_survives(node: &mut SingleNode) -> Result<()> {
    let (fixture, block, next) = one_of_two(node, "doubt", 23).await?;
    let reads = Selector::verbs(READS).of("addressblocks");
    let failing = node.api()?.inject(reads.clone(), Fault::Refuse(500));
    let mark = node.api()?.mark();
    block.give_to_other_node(node).await?;
    wait_until("the agent has failed twice to read the block that it doubts", WAIT_TIMEOUT, || async {
        let tries = node.api()?.observed(mark, &reads).len();
        Ok(check(tries >= 2, || format!("{tries} reads")))
    })
    .await?;
    node.kill_agent();
    node.start_agent_only()?;
    let answer = first_add(node, &fixture.pods[next])?;
    drop(failing);
    must_not_be_of(&answer, &block)?;
    node.await_agent(WAIT_TIMEOUT).await?;
    fixture.end(node).await
}

pub async fn cooling(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "still-cools", 24, 31, 1, json!({"cooldownSeconds": 300})).await?;
    fixture.add(node).await?;
    let second = fixture.add(node).await?;
    let address = fixture.address(second)?;
    let (before, after) = (fixture.pod(node).await?, fixture.pod(node).await?);
    await_checkpointed(node, &fixture.name_of(after)).await?;
    node.del(&fixture.pods[second])?;
    node.proxy.set(NetworkFault::Refuse);
    let answer = node.call(&fixture.pods[before].call("ADD"))?;
    ensure!(
        answered(&answer)? == Some(address),
        "before the restart the pod got no cooling address: {}",
        answer.stdout
    );
    node.del(&fixture.pods[before])?;
    node.kill_agent();
    node.start_agent_only()?;
    let answer = first_add(node, &fixture.pods[after])?;
    ensure!(answered(&answer)? == Some(address), "after the restart the pod did not get {address}: {}", answer.stdout);
    let mark = node.api()?.mark();
    node.proxy.set(NetworkFault::None);
    node.await_agent(WAIT_TIMEOUT).await?;
    await_contact(node, mark).await?;
    fixture.end(node).await
}
