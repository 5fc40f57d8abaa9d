//! A block is released only after its assignments are deleted. A release is cancelled for a waiting ADD, retried after
//! a refusal by the API server, and completed before an uninstall.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::single_node::{NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::fixture::{Block, PoolFixture, WRITES, answered, assignment_holder, pools};
use super::with_flags;

/// How long a forced uninstall may take: it waits 30 s for its blocks.
const FORCED_UNINSTALL_TIMEOUT: Duration = Duration::from_mins(1);

fn writes(block: &Block) -> Selector {
    Selector::verbs(WRITES).of("addressblocks").named(&block.name)
}

async fn is_free(node: &SingleNode, block: &Block) -> Result<()> {
    wait_until(&format!("block {} is free", block.name), WAIT_TIMEOUT, || async {
        let owner = block.owner(node).await?;
        Ok(check(owner.is_none(), || format!("its owner is {owner:?}")))
    })
    .await
}

pub async fn assignments_first(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "assignments-first", 1, 30, 1, json!({})).await?;
    let pod = fixture.add(node).await?;
    let (block, address) = (fixture.block(node, pod).await?, fixture.address(pod)?);
    let deletions = Selector::verbs(&["delete"]).of("ipassignments");
    let refused = node.api()?.inject(deletions.clone(), Fault::Refuse(500));
    node.del(&fixture.pods[pod])?;
    fixture.drain(node, true).await?;
    let mark = node.api()?.mark();
    wait_until("the agent tried three times to delete the assignment, or released the block", WAIT_TIMEOUT, || async {
        let (tries, owner) = (node.api()?.observed(mark, &deletions).len(), block.owner(node).await?);
        Ok(check(tries >= 3 || owner.is_none(), || format!("{tries} tries, the block's owner is {owner:?}")))
    })
    .await?;
    let (owner, assignment) = (block.owner(node).await?, assignment_holder(node, address).await?);
    ensure!(
        owner.as_deref() == Some(NODE) && assignment.is_some(),
        "the node released block {} before the assignment of {address} was deleted \
         (owner {owner:?}, assignment {assignment:?})",
        block.name
    );
    drop(refused);
    is_free(node, &block).await?;
    ensure!(assignment_holder(node, address).await?.is_none(), "the block is free, but the assignment still exists");
    fixture.end(node).await
}

/// Sets the label that the pool's `nodeSelector` of this test matches.
async fn label(node: &SingleNode, value: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(node.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"admitted": value}}}));
    nodes.patch(NODE, &PatchParams::default(), &patch).await?;
    Ok(())
}

pub async fn not_admitted(node: &mut SingleNode) -> Result<()> {
    label(node, "yes").await?;
    let selector = json!({"nodeSelector": {"matchLabels": {"admitted": "yes"}}});
    let mut fixture = PoolFixture::create(node, "not-admitted", 247, 30, 1, selector).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    label(node, "no").await?;
    // The pod keeps its address, and the block goes with the last pod.
    let other = fixture.pod(node).await?;
    wait_until("the pool admits no pod of the node", WAIT_TIMEOUT, || async {
        let answer = node.call(&fixture.pods[other].call("ADD"))?;
        let refused = answer.error().is_ok_and(|error| error.text.contains("does not admit"));
        if !refused {
            node.del(&fixture.pods[other])?;
        }
        Ok(check(refused, || format!("{answer:?}")))
    })
    .await?;
    ensure!(block.owner(node).await?.as_deref() == Some(NODE), "the block of a running pod was released");
    node.del(&fixture.pods[pod])?;
    is_free(node, &block).await?;
    fixture.end(node).await
}

pub async fn cancelled(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "cancelled", 2, 31, 1, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    let deletions = Selector::verbs(&["delete"]).of("ipassignments");
    let refused = node.api()?.inject(deletions.clone(), Fault::Refuse(500));
    let mark = node.api()?.mark();
    node.del(&fixture.pods[pod])?;
    fixture.drain(node, true).await?;
    wait_until("the release waits for the deletion of the assignment", WAIT_TIMEOUT, || async {
        let tries = node.api()?.observed(mark, &deletions).len();
        Ok(check(tries >= 2, || format!("{tries} tries")))
    })
    .await?;
    fixture.undrain(node).await?;
    let next = fixture.pod(node).await?;
    node.add(&fixture.pods[next])?;
    let sent = node.api()?.observed(mark, &writes(&block));
    let sent: Vec<&str> = sent.iter().map(|write| write.verb).collect();
    ensure!(
        sent.is_empty(),
        "the block was released and claimed again although its assignment still existed: {sent:?}"
    );
    ensure!(block.is_exported(node)?, "the block is not exported: {:?}", node.table(119)?);
    drop(refused);
    fixture.end(node).await
}

pub async fn retried(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "retried", 3, 31, 1, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    let refused = node.api()?.inject(writes(&block), Fault::Refuse(500));
    let mark = node.api()?.mark();
    node.del(&fixture.pods[pod])?;
    fixture.drain(node, true).await?;
    wait_until("the release was tried three times", WAIT_TIMEOUT, || async {
        let tries = node.api()?.observed(mark, &writes(&block)).len();
        Ok(check(tries >= 3, || format!("{tries} tries")))
    })
    .await?;
    drop(refused);
    is_free(node, &block).await?;
    wait_until("the block is not exported", WAIT_TIMEOUT, || async {
        Ok(check(!block.is_exported(node)?, || format!("{:?}", node.table(119))))
    })
    .await?;
    fixture.end(node).await
}

pub async fn not_claimed_meanwhile(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "meanwhile", 4, 31, 1, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    // The operator would delete the free block of a draining pool.
    node.stop_operator();
    let held = node.api()?.inject(writes(&block).once(), Fault::HoldAnswer);
    let mark = node.api()?.mark();
    node.del(&fixture.pods[pod])?;
    fixture.drain(node, true).await?;
    is_free(node, &block).await?;
    fixture.undrain(node).await?;
    let next = fixture.pod(node).await?;
    let adding = fixture.begin_add(node, next);
    // Correctly, there is no such claim. Wait as long as a wrong claim and its event may take.
    let events = Selector::verbs(&["event"]).of("addressblocks").named(&block.name);
    let claimed = wait_until("a claim of the block was sent and reported", Duration::from_secs(3), || async {
        let (sent, told) = (node.api()?.observed(mark, &writes(&block)).len(), node.api()?.observed(mark, &events));
        let claimed = told.last().is_some_and(|event| event.body.contains("\"ADDED\""));
        Ok(check(sent >= 2 && claimed, || format!("{sent} writes, {} events", told.len())))
    });
    let claimed = claimed.await.is_ok();
    drop(held);
    let answer = adding.join().map_err(|_| anyhow!("the ADD's thread panicked"))??;
    let (owner, exported) = (block.owner(node).await?, block.is_exported(node)?);
    ensure!(
        !claimed,
        "block {} was claimed while the agent was still waiting for the answer to its release",
        block.name
    );
    ensure!(answered(&answer)?.is_some(), "the ADD failed ({owner:?}, exported {exported}): {}", answer.stdout);
    ensure!(owner.as_deref() == Some(NODE) && exported, "owner {owner:?}, exported {exported}");
    node.start_operator()?;
    fixture.end(node).await
}

pub async fn failed_withdrawal(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "withdrawal", 6, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    node.del(&fixture.pods[pod])?;
    node.await_assignments(&[], WAIT_TIMEOUT).await?;
    let faults = node.inject_syscall_faults(&["-etrace=sendto", "-einject=sendto:error=ENOBUFS"]).await?;
    fixture.drain(node, true).await?;
    let hits =
        wait_until("the kernel has refused to withdraw the block, and to export it again", WAIT_TIMEOUT, || async {
            let text = std::fs::read_to_string(node.path("strace.log"))?;
            let hits = text.matches("(INJECTED)").count();
            Ok(check(hits >= 2, || format!("{hits} refusals")))
        });
    hits.await?;
    // The pool is not draining any more before the kernel recovers, so nothing else causes a release.
    fixture.undrain(node).await?;
    faults.end(true).await?;
    let next = fixture.add(node).await?;
    let block = fixture.block(node, next).await?;
    // A change by another program starts a reconcile pass, which ends with the repair.
    let address = fixture.address(next)?.to_string();
    node.namespace.ip(&format!("route del {address} table 116\n"))?;
    wait_until("the pod's route exists again", WAIT_TIMEOUT, || async {
        let routes = node.table(116)?;
        Ok(check(routes.iter().any(|(dst, _)| *dst == address), || format!("{routes:?}")))
    })
    .await?;
    // Correctly, the export stays. Wait as long as the rest of that reconcile pass may take.
    let gone = wait_until("the block of a pod is not exported", Duration::from_secs(2), || async {
        Ok(check(!block.is_exported(node)?, || "exported".to_owned()))
    });
    let gone = gone.await.is_ok();
    ensure!(!gone, "a pod uses block {}, but the block is not exported: {:?}", block.name, node.table(119)?);
    fixture.end(node).await
}

pub async fn leaving(node: &mut SingleNode) -> Result<()> {
    // The pool has four blocks. The node keeps its last block even if it is empty.
    let mut fixture = PoolFixture::create(node, "leaving", 5, 29, 1, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    fixture.end(node).await?;
    let owner = block.owner(node).await?;
    ensure!(owner.as_deref() == Some(NODE), "the node released its last block {}: its owner is {owner:?}", block.name);
    let refused = node.api()?.inject(writes(&block), Fault::Refuse(500));
    let before = node.agent_log().len();
    node.kill_agent();
    node.set_agent_flags(&["--mode=remove"]);
    node.start_agent_only()?;
    let said = |log: &str| -> (bool, bool) {
        let new = log.get(before..).unwrap_or_default();
        let waits = new
            .lines()
            .any(|line| line.contains("uninstalling from node n1") && line.contains("wait") && line.contains("block"));
        (new.contains("Bobbin was removed from node"), waits)
    };
    wait_until(
        "the uninstall logs that it waits for blocks, or that it has removed Bobbin",
        WAIT_TIMEOUT * 3,
        || async {
            let (clean, waits) = said(&node.agent_log());
            Ok(check(clean || waits, || "neither".to_owned()))
        },
    )
    .await?;
    let owner = block.owner(node).await?;
    ensure!(!said(&node.agent_log()).0, "the uninstall ended while block {} had the owner {owner:?}", block.name);
    drop(refused);
    wait_until("the uninstall ends", WAIT_TIMEOUT, || async {
        Ok(check(said(&node.agent_log()).0, || node.agent_log_tail()))
    })
    .await?;
    let owner = block.owner(node).await?;
    ensure!(owner.is_none(), "the uninstall ended while block {} had the owner {owner:?}", block.name);
    with_flags(node, &[]).await
}

/// Restarts the agent with `--mode=remove --force`. Returns the length of the log before.
fn remove_by_force(node: &mut SingleNode) -> Result<usize> {
    let before = node.agent_log().len();
    node.kill_agent();
    node.set_agent_flags(&["--mode=remove", "--force"]);
    node.start_agent_only()?;
    Ok(before)
}

/// Waits until the agent's log after `before` contains these words.
async fn until_logged(node: &SingleNode, before: usize, words: &str) -> Result<()> {
    wait_until(&format!("the agent logs {words:?}"), FORCED_UNINSTALL_TIMEOUT, || async {
        let log = node.agent_log();
        Ok(check(log.get(before..).unwrap_or_default().contains(words), || node.agent_log_tail()))
    })
    .await
}

pub async fn forced(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "forced-off", 201, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let (block, address) = (fixture.block(node, pod).await?, fixture.address(pod)?);
    let before = remove_by_force(node)?;
    until_logged(node, before, "Bobbin was removed from node").await?;
    ensure!(node.attachments()?.is_empty(), "the pod still has its interface, so it could use its address");
    ensure!(assignment_holder(node, address).await?.is_none(), "the address of a pod without an interface is in use");
    wait_until("the block is free and the operator has removed its finalizer", WAIT_TIMEOUT, || async {
        let block = block.get(node).await?.context("the block is gone")?;
        let finalizers = block.metadata.finalizers.unwrap_or_default();
        Ok(check(block.spec.node_name.is_none() && finalizers.is_empty(), || {
            format!("{:?} {finalizers:?}", block.spec)
        }))
    })
    .await?;
    // The pool can be deleted, because nothing of it is left.
    pools(node).delete("forced-off", &DeleteParams::default()).await?;
    wait_until("the pool is gone", WAIT_TIMEOUT, || async {
        Ok(check(pools(node).get_opt("forced-off").await?.is_none(), || "it exists".to_owned()))
    })
    .await?;
    with_flags(node, &[]).await?;
    // The runtime's DEL for the pod succeeds once a CNI plugin is there again.
    fixture.end(node).await
}

pub async fn forced_without_api(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "forced-late", 202, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    let refused = node.api()?.inject(writes(&block), Fault::Refuse(500));
    let before = remove_by_force(node)?;
    until_logged(node, before, "not clean: 1 blocks are left to the operator").await?;
    ensure!(block.owner(node).await?.as_deref() == Some(NODE), "the block is free, although each release was refused");
    drop(refused);
    wait_until("the agent releases the block, because it still runs", WAIT_TIMEOUT * 2, || async {
        let owner = block.owner(node).await?;
        Ok(check(owner.is_none(), || format!("owner {owner:?}")))
    })
    .await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
