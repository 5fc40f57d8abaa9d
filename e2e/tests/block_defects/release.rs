//! The agent releases a block only after it has deleted the block's assignments. It cancels the release if an ADD waits
//! for an address, and repeats a release that the API server refused. An uninstall completes all releases.

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

/// How long a forced uninstall may take. It waits 30 s for the release of the node's blocks.
const FORCED_UNINSTALL_TIMEOUT: Duration = Duration::from_mins(1);

fn writes(block: &Block) -> Selector {
    Selector::verbs(WRITES).of("addressblocks").named(&block.name)
}

async fn is_free(node: &SingleNode, block: &Block) -> Result<()> {
    wait_until(&format!("block {} is free", block.name), WAIT_TIMEOUT, || async {
        let owner = block.owner(node).await?;
        Ok(check(owner.is_none(), || format!("the block's owner is {owner:?}")))
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
        Ok(check(tries >= 3 || owner.is_none(), || {
            format!("the agent tried {tries} times, and the block's owner is {owner:?}")
        }))
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

/// Sets a label of the Node. The pool's `nodeSelector` requires one value of this label.
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
    // The running pod keeps its address. The node releases the block only when the last pod has ended.
    let other = fixture.pod(node).await?;
    wait_until("the pool no longer admits new pods on the node", WAIT_TIMEOUT, || async {
        let answer = node.call(&fixture.pods[other].call("ADD"))?;
        let refused = answer.error().is_ok_and(|error| error.text.contains("does not admit"));
        if !refused {
            node.del(&fixture.pods[other])?;
        }
        Ok(check(refused, || format!("{answer:?}")))
    })
    .await?;
    ensure!(block.owner(node).await?.as_deref() == Some(NODE), "the node released the block of a running pod");
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
    wait_until(
        "the agent repeats the deletion of the assignment, so the release is waiting for it",
        WAIT_TIMEOUT,
        || async {
            let tries = node.api()?.observed(mark, &deletions).len();
            Ok(check(tries >= 2, || format!("{tries} tries")))
        },
    )
    .await?;
    fixture.undrain(node).await?;
    let next = fixture.pod(node).await?;
    node.add(&fixture.pods[next])?;
    let warned = node.warnings("PoolExhausted").await?;
    ensure!(!warned.iter().any(|note| note.contains("\"cancelled\"")), "the pool has room for the ADD: {warned:?}");
    let sent = node.api()?.observed(mark, &writes(&block));
    let sent: Vec<&str> = sent.iter().map(|write| write.verb).collect();
    ensure!(sent.is_empty(), "the agent wrote the block although its assignment still existed: {sent:?}");
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
    wait_until("the agent has tried three times to release the block", WAIT_TIMEOUT, || async {
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
    // Stop the operator, because it would delete a free block of a draining pool.
    node.stop_operator();
    let held = node.api()?.inject(writes(&block).once(), Fault::HoldAnswer);
    let mark = node.api()?.mark();
    node.del(&fixture.pods[pod])?;
    fixture.drain(node, true).await?;
    is_free(node, &block).await?;
    fixture.undrain(node).await?;
    let next = fixture.pod(node).await?;
    let adding = fixture.begin_add(node, next);
    // A correct agent does not claim the block while the answer to its release is held. Wait long enough to see a wrong
    // claim and its watch event.
    let events = Selector::verbs(&["event"]).of("addressblocks").named(&block.name);
    let claimed = wait_until(
        "the agent has claimed the block, and its watch has shown the claim",
        Duration::from_secs(3),
        || async {
            let (sent, told) = (node.api()?.observed(mark, &writes(&block)).len(), node.api()?.observed(mark, &events));
            let claimed = told.last().is_some_and(|event| event.body.contains("\"ADDED\""));
            Ok(check(sent >= 2 && claimed, || {
                format!("the proxy has seen {sent} writes of the block and {} events", told.len())
            }))
        },
    );
    let claimed = claimed.await.is_ok();
    drop(held);
    let first = adding.join().map_err(|_| anyhow!("the ADD's thread panicked"))??;
    ensure!(
        !claimed,
        "the agent claimed block {} while it was still waiting for the answer to its release",
        block.name
    );
    ensure!(
        answered(&first)?.is_some(),
        "the node has released block {}, but the waiting ADD got no address of it: {}",
        block.name,
        first.stdout
    );
    let (owner, exported) = (block.owner(node).await?, block.is_exported(node)?);
    ensure!(
        owner.as_deref() == Some(NODE) && exported,
        "the block's owner is {owner:?}, and it is exported: {exported}"
    );
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
        wait_until("the kernel has refused to remove the block's route and to add it again", WAIT_TIMEOUT, || async {
            let text = std::fs::read_to_string(node.path("strace.log"))?;
            let hits = text.matches("(INJECTED)").count();
            Ok(check(hits >= 2, || format!("the kernel has refused {hits} calls")))
        });
    hits.await?;
    // Stop draining the pool while the kernel still refuses the agent's changes of routes. From then on, the node has
    // no reason to release the block.
    fixture.undrain(node).await?;
    faults.end(true).await?;
    let next = fixture.add(node).await?;
    let block = fixture.block(node, next).await?;
    // Remove the pod's route, as another program might do. The removal makes the agent start a reconcile pass, which
    // restores the route.
    let address = fixture.address(next)?.to_string();
    node.namespace.ip(&format!("route del {address} table 116\n"))?;
    wait_until("the pod's route exists again", WAIT_TIMEOUT, || async {
        let routes = node.table(116)?;
        Ok(check(routes.iter().any(|(dst, _)| *dst == address), || format!("{routes:?}")))
    })
    .await?;
    // A correct agent keeps exporting the block. Wait until the reconcile pass has surely ended.
    let gone = wait_until("the block is no longer exported", Duration::from_secs(2), || async {
        Ok(check(!block.is_exported(node)?, || "exported".to_owned()))
    });
    let gone = gone.await.is_ok();
    ensure!(!gone, "a pod uses block {}, but the block is not exported: {:?}", block.name, node.table(119)?);
    fixture.end(node).await
}

pub async fn leaving(node: &mut SingleNode) -> Result<()> {
    // Use a pool of four blocks. The node must keep its last block of the pool, even when the block is empty.
    let mut fixture = PoolFixture::create(node, "leaving", 5, 29, 1, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    fixture.end(node).await?;
    let owner = block.owner(node).await?;
    ensure!(
        owner.as_deref() == Some(NODE),
        "the node released its last block {}, and the block's owner is {owner:?}",
        block.name
    );
    let refused = node.api()?.inject(writes(&block), Fault::Refuse(500));
    let before = node.agent_log().len();
    node.kill_agent();
    node.set_agent_flags(&["--mode=remove"]);
    node.start_agent_only()?;
    let said = |log: &str| -> (bool, bool) {
        let new = log.get(before..).unwrap_or_default();
        let waits = new
            .lines()
            .any(|line| line.contains("uninstall from node n1") && line.contains("wait") && line.contains("block"));
        (new.contains("Bobbin was removed from node"), waits)
    };
    wait_until(
        "the uninstall logs that it is waiting for blocks, or that it has removed Bobbin",
        WAIT_TIMEOUT * 3,
        || async {
            let (clean, waits) = said(&node.agent_log());
            Ok(check(clean || waits, || "the log has neither message".to_owned()))
        },
    )
    .await?;
    let owner = block.owner(node).await?;
    ensure!(
        !said(&node.agent_log()).0,
        "the uninstall ended although block {} still had the owner {owner:?}",
        block.name
    );
    drop(refused);
    wait_until("the uninstall ends", WAIT_TIMEOUT, || async {
        Ok(check(said(&node.agent_log()).0, || node.agent_log_tail()))
    })
    .await?;
    let owner = block.owner(node).await?;
    ensure!(owner.is_none(), "the uninstall ended although block {} still had the owner {owner:?}", block.name);
    with_flags(node, &[]).await
}

/// Restarts the agent with `--mode=remove --force`. Returns the length of the agent's log before the restart.
fn remove_by_force(node: &mut SingleNode) -> Result<usize> {
    let before = node.agent_log().len();
    node.kill_agent();
    node.set_agent_flags(&["--mode=remove", "--force"]);
    node.start_agent_only()?;
    Ok(before)
}

/// Waits until the agent has logged these words. Ignores the first `before` bytes of the log.
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
    ensure!(node.attachments()?.is_empty(), "the pod still has its interface after the forced uninstall");
    ensure!(
        assignment_holder(node, address).await?.is_none(),
        "the assignment of a pod without an interface still exists"
    );
    wait_until("the block is free and the operator has removed its finalizer", WAIT_TIMEOUT, || async {
        let block = block.get(node).await?.context("the block no longer exists")?;
        let finalizers = block.metadata.finalizers.unwrap_or_default();
        Ok(check(block.spec.node_name.is_none() && finalizers.is_empty(), || {
            format!("{:?} {finalizers:?}", block.spec)
        }))
    })
    .await?;
    // No block or assignment of the pool is left, so the pool can be deleted.
    pools(node).delete("forced-off", &DeleteParams::default()).await?;
    wait_until("the pool is gone", WAIT_TIMEOUT, || async {
        Ok(check(pools(node).get_opt("forced-off").await?.is_none(), || "the pool exists".to_owned()))
    })
    .await?;
    with_flags(node, &[]).await?;
    // The runtime's DEL for the pod succeeds when the CNI plugin is installed again.
    fixture.end(node).await
}

pub async fn forced_without_api(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "forced-late", 202, 28, 2, json!({})).await?;
    let pod = fixture.add(node).await?;
    let block = fixture.block(node, pod).await?;
    let refused = node.api()?.inject(writes(&block), Fault::Refuse(500));
    let before = remove_by_force(node)?;
    until_logged(node, before, "did not confirm the release of 1 blocks").await?;
    ensure!(
        block.owner(node).await?.as_deref() == Some(NODE),
        "the block is free, although the API server refused each release"
    );
    drop(refused);
    wait_until("the agent, which is still running, releases the block", WAIT_TIMEOUT * 2, || async {
        let owner = block.owner(node).await?;
        Ok(check(owner.is_none(), || format!("owner {owner:?}")))
    })
    .await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
