//! Several faults make the agent doubt that it owns a block. The next ADD then waits until the API server has created
//! its assignment, so that the pod gets no address that another node has assigned.
//!
//! In a block of four addresses, this node has one pod, another node has two assignments, and one address is free. An
//! ADD that waits gets the free address. The proxy holds the agent's reads of blocks, so that no read can prove that
//! this node owns the block.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::api_proxy::{Fault, FaultGuard, Selector};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::fixture::{PoolFixture, READS, answered, await_checkpointed, await_contact};
use super::proven_blocks::{WAIT, outlast_watch_silence, with_wait};
use super::with_flags;

/// A short `--confirm-wait`. It is shorter than the agent's pause after several failed creates. So an ADD gets its
/// confirmation in time only if the ADD ends this pause.
const SHORT: &str = "1s";

struct UnprovenBlock {
    fixture: PoolFixture,
    assigned_elsewhere: Vec<IpAddr>,
    next: usize,
}

impl UnprovenBlock {
    async fn begin(node: &mut SingleNode, pool: &'static str, third: u8, wait: &str) -> Result<Self> {
        with_wait(node, wait).await?;
        let mut fixture = PoolFixture::create(node, pool, third, 30, 2, json!({})).await?;
        fixture.add(node).await?;
        let taken = fixture.address(0)?;
        let next = fixture.pod(node).await?;
        await_checkpointed(node, &fixture.name_of(next)).await?;
        let assigned_elsewhere = fixture.block(node, 0).await?.assign_to_other_node(node, pool, &[taken], 1).await?;
        Ok(Self { fixture, assigned_elsewhere, next })
    }

    fn hold_reads(node: &SingleNode) -> Result<FaultGuard> {
        Ok(node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest))
    }

    async fn waits(self, node: &mut SingleNode, held: FaultGuard) -> Result<()> {
        let far = Fault::Delay(Duration::from_millis(100));
        let far = node.api()?.inject(Selector::verbs(&["create"]).of("ipassignments"), far);
        let answer = node.call(&self.fixture.pods[self.next].call("ADD"))?;
        drop((far, held));
        let got = answered(&answer)?;
        ensure!(got.is_some(), "the ADD failed: {}", answer.stdout);
        ensure!(
            got.is_none_or(|got| !self.assigned_elsewhere.contains(&got)),
            "the ADD did not wait for its assignment and got {got:?}, for which n9 has an assignment"
        );
        node.proxy.set(NetworkFault::None);
        with_flags(node, &[]).await?;
        self.fixture.end(node).await
    }
}

pub async fn broken_watch(node: &mut SingleNode) -> Result<()> {
    let block = UnprovenBlock::begin(node, "sign-broken", 91, WAIT).await?;
    let held = UnprovenBlock::hold_reads(node)?;
    let mark = node.api()?.mark();
    node.proxy.set(NetworkFault::Refuse);
    node.proxy.set(NetworkFault::None);
    await_contact(node, mark).await?;
    block.waits(node, held).await
}

pub async fn agent_start(node: &mut SingleNode) -> Result<()> {
    let block = UnprovenBlock::begin(node, "sign-start", 92, WAIT).await?;
    let held = UnprovenBlock::hold_reads(node)?;
    node.kill_agent();
    node.start_agent_only()?;
    node.await_agent(WAIT_TIMEOUT).await?;
    block.waits(node, held).await
}

pub async fn silence(node: &mut SingleNode) -> Result<()> {
    let block = UnprovenBlock::begin(node, "sign-silence", 93, WAIT).await?;
    let held = UnprovenBlock::hold_reads(node)?;
    // The fault also holds back the bookmarks of the watch.
    let _silent = [
        node.api()?.inject(Selector::verbs(&["watch"]).of("addressblocks"), Fault::Freeze),
        node.api()?.inject(Selector::verbs(&["watch"]).of("nodes"), Fault::Freeze),
    ];
    outlast_watch_silence().await;
    block.waits(node, held).await
}

pub async fn unauthorized(node: &mut SingleNode) -> Result<()> {
    let block = UnprovenBlock::begin(node, "sign-401", 97, SHORT).await?;
    // Let this node claim a block of the pool `default` for the pod `other`. During the fault below, the node can claim
    // no block.
    let first = node.sandbox()?;
    node.add(&first)?;
    node.del(&first)?;
    let refused = Selector::verbs(&["get", "list", "create", "update", "patch", "delete"]);
    let refused = node.api()?.inject(refused, Fault::Refuse(401));
    let other = node.sandbox()?;
    node.add(&other)?;
    // Let the API server refuse the agent's token for longer than a minute, shortened by the agent's time scale.
    outlast_watch_silence().await;
    let mark = node.api()?.mark();
    let held = UnprovenBlock::hold_reads(node)?;
    wait_until("the API server has refused the token for longer than a minute", WAIT_TIMEOUT, || async {
        // When the agent sends a second request, it knows that the API server has refused the first.
        let tries = node.api()?.observed(mark, &Selector::verbs(&["get", "create"]).of("ipassignments")).len();
        Ok(check(tries >= 2, || format!("{tries} tries")))
    })
    .await?;
    drop(refused);
    node.del(&other)?;
    block.waits(node, held).await
}

pub async fn lower_version(node: &mut SingleNode) -> Result<()> {
    let mut block = UnprovenBlock::begin(node, "sign-version", 94, WAIT).await?;
    // Call ADD for a pod of another pool. The answer to the create of its assignment has a very old resourceVersion.
    let old = node.api()?.inject(Selector::verbs(&["create"]).of("ipassignments"), Fault::OldVersion);
    let held = UnprovenBlock::hold_reads(node)?;
    let other = node.sandbox()?;
    node.add(&other)?;
    node.await_assignments(
        &[&block.fixture.pods[0].container_id, &other.container_id, "elsewhere", "elsewhere"],
        WAIT_TIMEOUT,
    )
    .await?;
    node.del(&other)?;
    block.next = block.fixture.pod(node).await?;
    // End the fault only now. The wait for the assignments above ends as soon as the API has them. At that moment, the
    // proxy may not have changed the answer to the create yet.
    drop(old);
    block.waits(node, held).await
}

pub async fn duplicate(node: &mut SingleNode) -> Result<()> {
    let block = UnprovenBlock::begin(node, "sign-duplicate", 95, WAIT).await?;
    let mut other = PoolFixture::create(node, "sign-other", 98, 31, 1, json!({})).await?;
    other.add(node).await?;
    let taken = other.address(0)?;
    other.block(node, 0).await?.assign_to_other_node(node, other.pool, &[taken], 0).await?;
    let held = UnprovenBlock::hold_reads(node)?;
    let mark = node.api()?.mark();
    let next = other.pod(node).await?;
    // The ADD finds the duplicate. It may fail or succeed, because the agent may find the duplicate after the answer.
    let _ = node.call(&other.pods[next].call("ADD"))?;
    wait_until("the agent has found the duplicate", WAIT_TIMEOUT, || async {
        // After the API server has refused its create, the agent reads the existing assignment.
        let read = node.api()?.observed(mark, &Selector::verbs(&["get"]).of("ipassignments"));
        Ok(check(!read.is_empty(), || "the agent has not read the assignment".to_owned()))
    })
    .await?;
    for pod in &other.pods {
        node.del(pod)?;
    }
    for number in 0..other.pods.len() {
        node.delete_kube_pod("default", &other.name_of(number)).await?;
    }
    block.waits(node, held).await
}
