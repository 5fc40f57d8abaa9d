//! A block serves ADDs only when the list of blocks in the agent's checkpoint contains the block. After the node has
//! lost a block, no ADD gets an address of that block.
//!
//! strace makes the agent's rename of the new checkpoint file fail, so that the agent can't save the list.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::api_proxy::Selector;
use bobbin_e2e::single_node::{SingleNode, SyscallFaults, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::fixture::{PoolFixture, READS, answered, must_not_be_of};
use super::with_flags;

/// How long the test watches for an early answer of an ADD. A correct agent does not answer in this time.
const WRONG_ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes every write of the list of blocks fail until the test ends the returned faults.
async fn refuse_writes(node: &SingleNode) -> Result<SyscallFaults> {
    let list = format!("-P{}", node.run_dir().join("blocks.json").display());
    let calls = "rename,renameat,renameat2";
    node.inject_syscall_faults(&[format!("-etrace={calls}"), format!("-einject={calls}:error=ENOSPC"), list]).await
}

/// Waits until `count` writes of the list of blocks have failed.
async fn writes_failed(node: &SingleNode, count: usize) -> Result<()> {
    wait_until(&format!("{count} writes of the list of blocks have failed"), WAIT_TIMEOUT, || async {
        let text = std::fs::read_to_string(node.path("strace.log"))?;
        let failed = text.matches("(INJECTED)").count();
        Ok(check(failed >= count, || format!("{failed} writes have failed")))
    })
    .await
}

pub async fn written_before_service(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &["--add-timeout=50s"]).await?;
    let mut fixture = PoolFixture::create(node, "list-first", 18, 28, 2, json!({})).await?;
    let faults = refuse_writes(node).await?;
    let pod = fixture.pod(node).await?;
    let adding = fixture.begin_add(node, pod);
    wait_until("the node has claimed a block", WAIT_TIMEOUT, || async {
        let own = node.own_blocks("list-first").await?.len();
        Ok(check(own > 0, || "none".to_owned()))
    })
    .await?;
    writes_failed(node, 2).await?;
    let early = wait_until("the ADD is answered", WRONG_ANSWER_TIMEOUT, || async {
        Ok(check(adding.is_finished(), || "the ADD is still waiting".to_owned()))
    });
    let early = early.await.is_ok();
    faults.end(true).await?;
    let answer = adding.join().map_err(|_| anyhow!("the thread of the ADD panicked"))??;
    ensure!(!early, "the ADD got an address of a block that is not in the saved list: {}", answer.stdout.trim());
    ensure!(
        answered(&answer)?.is_some(),
        "the ADD failed although writes of the list of blocks succeed again: {}",
        answer.stdout.trim()
    );
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn lost_without_write(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "lost-first", 19, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    let next = fixture.pod(node).await?;
    let faults = refuse_writes(node).await?;
    let (mark, reads) = (node.api()?.mark(), Selector::verbs(READS).of("addressblocks"));
    block.give_to_other_node(node).await?;
    wait_until("the agent reads the block", WAIT_TIMEOUT, || async {
        let seen = node.api()?.observed(mark, &reads).len();
        Ok(check(seen > 0, || "no read".to_owned()))
    })
    .await?;
    writes_failed(node, 1).await.context("the agent did not write the list of blocks after the block was lost")?;
    let answer = node.call(&fixture.pods[next].call("ADD"))?;
    faults.end(true).await?;
    must_not_be_of(&answer, &block)?;
    fixture.end(node).await
}
