//! An ADD does not wait for its assignment if the agent has proof that its node owns the block. Without this proof the
//! ADD waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::control_plane::Entry;
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{AGENT_USER, NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::direct_routing::{METRICS, counter};
use super::fixture::{Block, PoolFixture, answered, await_node_warning};
use super::{TIME_SCALE, scaled, with_flags};

/// How long the agent trusts a watch without events. After this time, the agent no longer counts its blocks as proven.
const WATCH_SILENCE: Duration = Duration::from_secs(90);

/// How long an ADD from an unproven block waits for its assignment in these tests.
pub const WAIT: &str = "2s";

/// Restarts the agent with this `--confirm-wait`.
pub async fn with_wait(node: &mut SingleNode, wait: &str) -> Result<()> {
    with_flags(node, &[&format!("--confirm-wait={wait}")]).await
}

/// Waits until the agent no longer trusts a silent watch. The wait has a fixed length, because the test can't see the
/// agent's trust.
pub async fn outlast_watch_silence() {
    tokio::time::sleep(WATCH_SILENCE.mul_f64(TIME_SCALE) + Duration::from_secs(1)).await;
}

/// Calls ADD for a new pod, and checks that the pod gets no address of `block`, which the other node owns. Delays
/// creates of assignments, so that an ADD that does not wait for its create can't notice a conflict.
async fn none_of_theirs(node: &SingleNode, fixture: &mut PoolFixture, block: &Block, mark: usize) -> Result<()> {
    let next = fixture.pod(node).await?;
    let far = Fault::Delay(Duration::from_millis(100));
    let _far = node.api()?.inject(Selector::verbs(&["create"]).of("ipassignments"), far);
    let answer = node.call(&fixture.pods[next].call("ADD"))?;
    if let Some(address) = answered(&answer)? {
        ensure!(
            !block.range.contains(&address),
            "a pod of this node got {address}, but n9 owns block {} and the assignment of this address; the watch had shown {} changes of the block",
            block.name,
            node.api()?.observed(mark, &Selector::verbs(&["event"]).of("addressblocks").named(&block.name)).len()
        );
    }
    Ok(())
}

pub async fn no_wait(node: &mut SingleNode) -> Result<()> {
    // With `--confirm-wait=50s`, an ADD that waits for its confirmation takes longer than this test allows. With
    // `--time-scale=1`, a proof ends only when a watch has been silent for longer than this test takes.
    with_flags(node, &["--confirm-wait=50s", "--time-scale=1", &format!("--metrics-address={METRICS}")]).await?;
    let mut fixture = PoolFixture::create(node, "proven", 81, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    // An earlier test caused an outage. During the quiet time after an outage, no block is proven. The agent remembers
    // the quiet time across restarts, so wait for its end.
    let probe = fixture.pod(node).await?;
    let (pods, reader) = (&fixture.pods, &*node);
    wait_until("the block is proven", Duration::from_mins(1), || async move {
        let before = counter(reader, "bobbin_agent_unproven_adds_total")?;
        reader.call(&pods[probe].call("ADD"))?.ok()?;
        reader.del(&pods[probe])?;
        let waited = counter(reader, "bobbin_agent_unproven_adds_total")? - before;
        Ok(check(waited == 0, || "an ADD waited for its confirmation".to_owned()))
    })
    .await?;
    let next = fixture.pod(node).await?;
    let held = node.api()?.inject(Selector::verbs(&["create"]).of("ipassignments"), Fault::HoldRequest);
    let adding = fixture.begin_add(node, next);
    let done = wait_until(
        "the agent answers the ADD before the API server has created its assignment",
        WAIT_TIMEOUT,
        || async { Ok(check(adding.is_finished(), || "the ADD is still waiting".to_owned())) },
    );
    let done = done.await;
    drop(held);
    let answer = adding.join().map_err(|_| anyhow!("the thread of the ADD panicked"))??;
    done.with_context(|| {
        format!("the ADD waited although its block is proven; the ADD's answer is {}", answer.stdout.trim())
    })?;
    ensure!(answered(&answer)?.is_some(), "{}", answer.stdout);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn half_open(node: &mut SingleNode) -> Result<()> {
    with_wait(node, WAIT).await?;
    let mut fixture = PoolFixture::create(node, "half-open", 82, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let (block, taken) = (fixture.block(node, 0).await?, fixture.address(0)?);
    let frozen = [
        node.api()?.inject(Selector::verbs(&["watch"]).of("addressblocks"), Fault::Freeze),
        node.api()?.inject(Selector::verbs(&["watch"]).of("nodes"), Fault::Freeze),
    ];
    let (mark, nodes): (usize, Api<Node>) = (node.api()?.mark(), Api::all(node.client.clone()));
    nodes.delete(NODE, &DeleteParams::default()).await?;
    node.make_node().await?;
    block.give_to_other_node(node).await?;
    block.assign_to_other_node(node, fixture.pool, &[taken], 0).await?;
    outlast_watch_silence().await;
    none_of_theirs(node, &mut fixture, &block, mark).await?;
    await_node_warning(node, &["lost", &block.name]).await?;
    drop(frozen);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn another_uid(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "another-uid", 85, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let block = fixture.block(node, 0).await?;
    let nodes: Api<Node> = Api::all(node.client.clone());
    nodes.delete(NODE, &DeleteParams::default()).await?;
    node.make_node().await?;
    let uid = nodes.get(NODE).await?.metadata.uid;
    wait_until("the block names the UID of the new Node", WAIT_TIMEOUT, || async {
        let now = block.get(node).await?.and_then(|block| block.spec.node_uid);
        Ok(check(now == uid, || format!("the block names the UID {now:?}, not {uid:?}")))
    })
    .await?;
    fixture.add(node).await?;
    fixture.end(node).await
}

pub async fn from_the_future(node: &mut SingleNode) -> Result<()> {
    with_wait(node, WAIT).await?;
    let mut fixture = PoolFixture::create(node, "future", 83, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let (block, taken) = (fixture.block(node, 0).await?, fixture.address(0)?);
    let restored = node.api()?.inject(Selector::verbs(&["watch"]), Fault::Rewind(fresh_version(node).await?));
    let mark = node.api()?.mark();
    node.proxy.set(NetworkFault::Refuse);
    node.proxy.set(NetworkFault::None);
    wait_until("the agent watches its blocks again", WAIT_TIMEOUT, || async {
        let watches = node.api()?.observed(mark, &Selector::verbs(&["watch"]).of("addressblocks"));
        Ok(check(!watches.is_empty(), || "not yet".to_owned()))
    })
    .await?;
    block.give_to_other_node(node).await?;
    block.assign_to_other_node(node, fixture.pool, &[taken], 0).await?;
    none_of_theirs(node, &mut fixture, &block, mark).await?;
    await_node_warning(node, &["lost", &block.name]).await?;
    drop(restored);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

/// Writes an object, and returns its resourceVersion. The agent has seen only lower resourceVersions.
async fn fresh_version(node: &SingleNode) -> Result<u64> {
    let namespaces: Api<Namespace> = Api::all(node.client.clone());
    let patch = json!({"metadata": {"annotations": {"e2e/now": super::fixture::now()}}});
    let written = namespaces.patch("bobbin-system", &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(written.metadata.resource_version.context("no resourceVersion")?.parse()?)
}

pub async fn idle(node: &mut SingleNode) -> Result<()> {
    const SCALE: f64 = 0.01;
    let quarter = Duration::from_mins(15).mul_f64(SCALE);
    let flags = [scaled(SCALE)];
    with_flags(node, &flags.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut fixture = PoolFixture::create(node, "idle", 84, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let next = fixture.pod(node).await?;
    // After a quarter of an hour of scaled time, the agent has finished the work of its start and of the first ADD.
    tokio::time::sleep(quarter).await;
    let (audit, begun) = (node.control_plane.audit(), Instant::now());
    let mark = audit.mark();
    tokio::time::sleep(quarter.saturating_sub(begun.elapsed())).await;
    let own = |entry: &Entry| entry.user.username == AGENT_USER && entry.is_read();
    let names = |entries: Vec<Entry>| -> Vec<String> {
        entries.iter().map(|entry| format!("{} {} {}", entry.verb, entry.resource(), entry.name())).collect()
    };
    for resource in ["nodes", "addressblocks"] {
        let reads = audit.calls(mark, |entry| own(entry) && entry.resource() == resource)?;
        // Two resyncs are at least a quarter of an hour apart, so at most one begins after the mark. One more resync
        // may have begun before the mark and still be reading.
        ensure!(reads.len() <= 2, "the agent sent too many reads in an idle cluster: {:?}", names(reads));
    }
    let mark = audit.mark();
    node.add(&fixture.pods[next])?;
    wait_until("the ADD's assignment is in the audit log", WAIT_TIMEOUT, || async {
        let written = audit.calls(mark, |entry| entry.user.username == AGENT_USER && entry.verb == "create")?;
        Ok(check(!written.is_empty(), || "no create".to_owned()))
    })
    .await?;
    let reads = audit.calls(mark, |entry| own(entry) && entry.resource() == "addressblocks")?;
    ensure!(
        reads.len() <= 2,
        "one ADD after an idle quarter of an hour made the agent read its blocks {} times",
        reads.len()
    );
    with_flags(node, &[]).await?;
    fixture.end(node).await.map_err(|error| anyhow!("the clean-up after an idle quarter of an hour failed: {error:#}"))
}
