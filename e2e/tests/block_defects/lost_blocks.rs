//! Tests blocks that this node loses in the API. The block loses its owner, or another node claims it.

use anyhow::{Result, anyhow, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::single_node::{NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::fixture::{PoolFixture, READS, assignment_holder, await_node_warning, delete_assignment, must_not_be_of};
use super::{IMMEDIATE_TIMEOUT, with_flags};

pub async fn claimed_back(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "back", 11, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let (block, address) = (fixture.block(node, pod).await?, fixture.address(pod)?);
    block.free(node).await?;
    delete_assignment(node, address).await?;
    wait_until(
        "this node owns and exports the block again, and its pod has an assignment",
        IMMEDIATE_TIMEOUT,
        || async {
            let (owner, assignment) = (block.owner(node).await?, assignment_holder(node, address).await?);
            let exported = block.is_exported(node)?;
            let right = owner.as_deref() == Some(NODE)
                && exported
                && assignment.as_ref() == Some(&fixture.pods[pod].container_id);
            Ok(check(right, || format!("the block's owner is {owner:?}, it is exported: {exported}, and the assignment names {assignment:?}")))
        },
    )
    .await?;
    let next = fixture.add(node).await?;
    ensure!(block.range.contains(&fixture.address(next)?), "the next pod got no address of the block");
    fixture.end(node).await
}

pub async fn taken(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "taken", 12, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let (block, address) = (fixture.block(node, pod).await?, fixture.address(pod)?);
    // Change the objects as if the operator had reclaimed the block of a deleted node. The operator frees the block,
    // another node claims it, and the operator deletes the assignments.
    block.give_to_other_node(node).await?;
    delete_assignment(node, address).await?;
    await_node_warning(node, &["lost", &block.name]).await?;
    wait_until("the pod of the lost block has an assignment", IMMEDIATE_TIMEOUT, || async {
        let assignment = assignment_holder(node, address).await?;
        Ok(check(assignment.as_ref() == Some(&fixture.pods[pod].container_id), || {
            format!("the assignment names the container {assignment:?}")
        }))
    })
    .await?;
    let next = fixture.pod(node).await?;
    must_not_be_of(&node.call(&fixture.pods[next].call("ADD"))?, &block)?;
    fixture.end(node).await
}

pub async fn two_at_once(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "two", 13, 29, 1, json!({"maxBlocksPerNode": 2})).await?;
    for _ in 0..3 {
        fixture.add(node).await?;
    }
    let (first, second) = (fixture.block(node, 0).await?, fixture.block(node, 2).await?);
    ensure!(first.name != second.name, "a block of two addresses has three pods");
    let next = fixture.pod(node).await?;
    super::fixture::await_checkpointed(node, &fixture.name_of(next)).await?;
    let held = node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest);
    let mark = node.api()?.mark();
    first.give_to_other_node(node).await?;
    wait_until("the agent reads the first block", WAIT_TIMEOUT, || async {
        let reads = node.api()?.observed(mark, &Selector::verbs(READS).of("addressblocks"));
        Ok(check(!reads.is_empty(), || "no read".to_owned()))
    })
    .await?;
    let mark = node.api()?.mark();
    second.give_to_other_node(node).await?;
    second.await_lost_event(node, mark).await?;
    let answer = node.call(&fixture.pods[next].call("ADD"))?;
    drop(held);
    must_not_be_of(&answer, &second)?;
    must_not_be_of(&answer, &first)?;
    fixture.end(node).await
}

pub async fn during_add(node: &mut SingleNode) -> Result<()> {
    // Turn the time scale off, because it does not shorten the 5 s by which strace delays each setns below.
    with_flags(node, &["--time-scale=1"]).await?;
    let mut fixture = PoolFixture::create(node, "during", 14, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let block = fixture.block(node, 0).await?;
    let next = fixture.pod(node).await?;
    // Only threads that set up a pod's network call setns.
    let slow = node.inject_syscall_faults(&["-etrace=setns", "-einject=setns:delay_enter=5000000"]).await?;
    let mark = node.api()?.mark();
    let adding = fixture.begin_add(node, next);
    wait_until("the agent sends the ADD's assignment", WAIT_TIMEOUT, || async {
        let sent = node.api()?.observed(mark, &Selector::verbs(&["create"]).of("ipassignments"));
        Ok(check(!sent.is_empty(), || "no create".to_owned()))
    })
    .await?;
    let mark = node.api()?.mark();
    block.give_to_other_node(node).await?;
    block.await_lost_event(node, mark).await?;
    await_node_warning(node, &[&block.name]).await?;
    ensure!(!adding.is_finished(), "the ADD ended before the node lost the block, so this test proves nothing");
    let answer = adding.join().map_err(|_| anyhow!("the ADD's thread panicked"))??;
    slow.end(true).await?;
    must_not_be_of(&answer, &block)?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
