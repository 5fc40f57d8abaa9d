//! Runs a real agent and a real operator behind the fault proxy. After each test, the invariant checker must find
//! nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::invariants;
use bobbin_e2e::single_node::{AGENT_USER, OPERATOR_USER, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

/// How long the node may take until no invariant is broken.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The API verbs of all writes.
const WRITES: &[&str] = &["create", "update", "patch", "delete"];
/// The number of pods in each test. A block has two addresses, so the agent must claim several blocks.
const PODS: usize = 6;
/// The number of pods in a burst. They need more blocks than the operator keeps free.
const BURST: usize = 24;

/// Creates a pool of small blocks.
async fn make_pool(node: &SingleNode, pool: &str, ipv4: &str) -> Result<()> {
    let spec = json!({"subnets": [{"ipv4": ipv4}], "blockSizeBits": 1, "cooldownSeconds": 1});
    node.apply_pool(pool, spec).await?;
    node.await_free_blocks(pool).await
}

/// Creates the pods of a pool. The agent claims blocks for them, possibly before the first ADD.
async fn make_pods(node: &SingleNode, pool: &str) -> Result<Vec<Sandbox>> {
    let mut pods = Vec::new();
    for number in 0..PODS {
        pods.push(node.kube_pod("default", &format!("{pool}-{number}"), Some(pool)).await?);
    }
    Ok(pods)
}

/// Calls ADD for each pod. After a failed ADD it calls DEL and repeats the ADD, like a container runtime.
async fn add(node: &SingleNode, pods: &[Sandbox]) -> Result<()> {
    for pod in pods {
        wait_until("the ADD succeeds", SETTLE_TIMEOUT, || async {
            let answer = node.call(&pod.call("ADD"))?;
            if answer.exit != 0 {
                node.del(pod)?;
            }
            Ok(check(answer.exit == 0, || answer.stdout.clone()))
        })
        .await?;
    }
    Ok(())
}

/// Waits until each pod has its assignment and the invariant checker finds nothing.
async fn is_consistent(node: &SingleNode, pods: &[Sandbox]) -> Result<()> {
    let ids: Vec<&str> = pods.iter().map(|pod| pod.container_id.as_str()).collect();
    node.await_assignments(&ids, SETTLE_TIMEOUT).await?;
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    invariants::await_none(node, SETTLE_TIMEOUT).await
}

async fn delete_pods(node: &SingleNode, pool: &str, pods: &[Sandbox]) -> Result<()> {
    for (number, pod) in pods.iter().enumerate() {
        node.del(pod)?;
        node.delete_kube_pod("default", &format!("{pool}-{number}")).await?;
    }
    is_consistent(node, &[]).await
}

/// Checks that the user has sent, after the mark, a request with one of these verbs for this resource. Without such a
/// request, the injected fault would have had nothing to hit.
fn was_written(
    node: &SingleNode,
    mark: usize,
    user: &str,
    verb: &'static [&'static str],
    of: &'static str,
) -> Result<()> {
    let seen = node.api()?.observed(mark, &Selector::verbs(verb).by(user).of(of));
    ensure!(!seen.is_empty(), "{user} sent no {verb:?} of {of}, so the fault hit nothing");
    Ok(())
}

/// Adds and deletes pods while a fault hits all writes of the agent.
async fn under(node: &SingleNode, pool: &str, ipv4: &str, fault: Fault) -> Result<()> {
    make_pool(node, pool, ipv4).await?;
    let mark = node.api()?.mark();
    let broken = node.api()?.inject(Selector::verbs(WRITES).by(AGENT_USER), fault);
    let pods = make_pods(node, pool).await?;
    add(node, &pods).await?;
    is_consistent(node, &pods).await.context("the check failed after the ADDs, while the fault was active")?;
    delete_pods(node, pool, &pods).await.context("the check failed after the DELs, while the fault was active")?;
    drop(broken);
    was_written(node, mark, AGENT_USER, &["patch"], "addressblocks")?;
    was_written(node, mark, AGENT_USER, &["create"], "ipassignments")?;
    was_written(node, mark, AGENT_USER, &["delete"], "ipassignments")
}

pub async fn twice(node: &mut SingleNode) -> Result<()> {
    under(node, "twice", "10.68.1.0/27", Fault::ApplyTwice).await
}

pub async fn throttled(node: &mut SingleNode) -> Result<()> {
    let pool = "throttled";
    make_pool(node, pool, "10.68.2.0/27").await?;
    let pods = make_pods(node, pool).await?;
    let writes = || Selector::verbs(WRITES).by(AGENT_USER);
    let throttled = node.api()?.inject(writes().of("ipassignments"), Fault::Throttle(Duration::from_secs(1)));
    let (mark, first) = (node.api()?.mark(), &pods[..1]);
    let adding = std::thread::spawn({
        let (plugin, call) = (node.plugin(), first[0].call("ADD"));
        move || plugin.call(&call)
    });
    wait_until("the agent repeats the write that was throttled", WAIT_TIMEOUT, || async {
        let sent = node.api()?.observed(mark, &Selector::verbs(&["create"]).by(AGENT_USER).of("ipassignments")).len();
        Ok(check(sent >= 2, || format!("the agent has sent the write {sent} times")))
    })
    .await?;
    drop(throttled);
    let answer = adding.join().map_err(|_| anyhow::anyhow!("the thread of the ADD panicked"))??;
    if answer.exit != 0 {
        node.del(&pods[0])?;
        add(node, first).await?;
    }
    add(node, &pods[1..]).await?;
    is_consistent(node, &pods).await?;
    delete_pods(node, pool, &pods).await
}

pub async fn lost_answers(node: &mut SingleNode) -> Result<()> {
    let pool = "lost-answers";
    make_pool(node, pool, "10.68.3.0/27").await?;
    let mark = node.api()?.mark();
    let writes = || Selector::verbs(WRITES).by(AGENT_USER).once();
    let mut pods = Vec::new();
    for number in 0..PODS {
        // For each pod, the proxy loses the first answer to a write of a block and the first answer to a write of an
        // assignment.
        let block = node.api()?.inject(writes().of("addressblocks"), Fault::LoseAnswer);
        let assignment = node.api()?.inject(writes().of("ipassignments"), Fault::LoseAnswer);
        pods.push(node.kube_pod("default", &format!("{pool}-{number}"), Some(pool)).await?);
        add(node, &pods[number..]).await?;
        is_consistent(node, &pods).await.with_context(|| format!("after ADD {number}"))?;
        drop((block, assignment));
    }
    was_written(node, mark, AGENT_USER, &["patch"], "addressblocks")?;
    was_written(node, mark, AGENT_USER, &["create"], "ipassignments")?;
    let lost = node.api()?.inject(Selector::verbs(&["delete"]).by(AGENT_USER).of("ipassignments"), Fault::LoseAnswer);
    for pod in &pods {
        node.del(pod)?;
    }
    wait_until("the API server has deleted every assignment", WAIT_TIMEOUT, || async {
        let left = node.assignments().await?.len();
        Ok(check(left == 0, || format!("{left} assignments still exist")))
    })
    .await?;
    drop(lost);
    delete_pods(node, pool, &pods).await
}

pub async fn operator(node: &mut SingleNode) -> Result<()> {
    node.stop_operator();
    node.start_operator_behind_proxy()?;
    for (pool, ipv4, fault) in
        [("carved-twice", "10.68.4.0/27", Fault::ApplyTwice), ("carved-lost", "10.68.5.0/27", Fault::LoseAnswer)]
    {
        let mark = node.api()?.mark();
        let writes = Selector::verbs(WRITES).by(OPERATOR_USER);
        let broken = node.api()?.inject(writes, fault);
        make_pool(node, pool, ipv4).await.context("the check failed while the fault was active")?;
        let blocks = node.blocks().await?.into_iter().filter(|block| block.spec.pool_name == pool);
        let ranges: Vec<Option<String>> = blocks.map(|block| block.spec.ipv4).collect();
        let different: BTreeSet<&Option<String>> = ranges.iter().collect();
        ensure!(!ranges.is_empty() && different.len() == ranges.len(), "the pool has the wrong blocks: {ranges:?}");
        drop(broken);
        was_written(node, mark, OPERATOR_USER, &["create"], "addressblocks")?;
        is_consistent(node, &[]).await?;
    }
    node.stop_operator();
    node.start_operator()
}

pub async fn burst_without_cooling(node: &mut SingleNode) -> Result<()> {
    let pool = "burst";
    let spec = json!({"subnets": [{"ipv4": "10.68.6.0/25"}], "blockSizeBits": 1, "cooldownSeconds": 600});
    node.apply_pool(pool, spec).await?;
    node.await_free_blocks(pool).await?;
    // The addresses of the first pods cool down in blocks that the node keeps.
    let first = make_pods(node, pool).await?;
    add(node, &first).await?;
    delete_pods(node, pool, &first).await?;
    node.stop_operator();
    node.start_operator_behind_proxy()?;
    let mark = node.api()?.mark();
    let creates = Selector::verbs(&["create"]).by(OPERATOR_USER).of("addressblocks");
    let late = node.api()?.inject(creates, Fault::Delay(Duration::from_millis(300)));
    let log_length = node.agent_log().len();
    let mut pods = Vec::new();
    for number in 0..BURST {
        pods.push(node.kube_pod("default", &format!("{pool}-{number}"), Some(pool)).await?);
    }
    let calls = pods.iter().map(|pod| {
        let (plugin, call) = (node.plugin(), pod.call("ADD"));
        std::thread::spawn(move || plugin.call(&call))
    });
    for call in calls.collect::<Vec<_>>() {
        call.join().map_err(|_| anyhow::anyhow!("the thread of an ADD panicked"))??.ok()?;
    }
    drop(late);
    was_written(node, mark, OPERATOR_USER, &["create"], "addressblocks")?;
    let log = node.agent_log();
    let early: Vec<&str> = log
        .get(log_length..)
        .unwrap_or(&log)
        .lines()
        .filter(|line| line.contains("before the end of its cool-down"))
        .collect();
    ensure!(early.is_empty(), "the agent assigned cooling addresses: {early:?}");
    is_consistent(node, &pods).await?;
    delete_pods(node, pool, &pods).await?;
    node.stop_operator();
    node.start_operator()
}
