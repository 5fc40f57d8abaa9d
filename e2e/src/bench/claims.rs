//! Measures a thousand nodes that claim their first block at the same time with the agent's code. For comparison, the
//! same nodes send a thousand bare JSON patches over the same connections. The difference between both times is the
//! cost of the claim protocol beyond one conditional write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bobbin_crds::{AddressBlock, FINALIZER, name};
use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Resource;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};

use super::samples::Samples;
use super::{BenchConfig, Report};
use crate::claiming_nodes::{ClaimFixture, ClaimingCluster, ClaimingNode, carved_for, claim_at_once, pool};

/// The number of nodes that claim a block at once.
pub const NODES: usize = 1000;
/// The pool from which the nodes claim.
const POOL: &str = "default";
/// The name of the report's row about claims from a new pool.
pub const NEW_POOL_ROW: &str = "1000 claims, new pool";
/// How long a node waits for a block of a new pool. This time is longer than an ADD waits for a block, so that the report
/// also has the times of slow nodes.
const NEW_POOL_DEADLINE: Duration = Duration::from_mins(2);
/// The number of blocks that the benchmark frees concurrently between two measurements.
const CONCURRENCY: usize = 16;

/// The API calls and the failures of concurrent claims.
#[derive(Debug, Default)]
pub struct ClaimCalls {
    /// The number of API calls of each claim, in ascending order.
    counts: Vec<usize>,
    /// The number of rounds in which a claim failed or two nodes got the same block.
    pub wrong: usize,
}

impl ClaimCalls {
    fn add(&mut self, counts: Vec<usize>) {
        self.counts.extend(counts);
        self.counts.sort_unstable();
    }

    /// The mean number of API calls per claim.
    pub fn mean(&self) -> f64 {
        self.counts.iter().sum::<usize>() as f64 / self.counts.len().max(1) as f64
    }

    /// The nearest-rank percentile of the API calls per claim. `None` if there are no claims.
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.counts.len() * percent).div_ceil(100).max(1);
        self.counts.get(rank - 1).map(|count| *count as f64)
    }
}

/// Measures claims and bare patches of blocks in alternating order.
pub async fn measure(config: BenchConfig, report: &mut Report) -> Result<()> {
    eprintln!("bench: carving blocks for {NODES} nodes that claim at once");
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build, so its claims are slower than those of a release build");
    }
    let fixture = ClaimFixture::start(true).await?;
    let carved = carved_for(NODES)?;
    fixture.carve(POOL, 80, 0..carved).await?;
    let pool = pool(POOL, 80, Some((0, carved - 1)))?;
    let (mut ours, mut bare, mut calls) = (Samples::default(), Samples::default(), ClaimCalls::default());
    for round in 0..config.rounds {
        eprintln!("bench: measuring claims of {NODES} nodes, round {} of {}", round + 1, config.rounds);
        // Use new node names in each round, because a node's name determines the order in which the node tries blocks.
        let prefix = format!("round{round}");
        let nodes = fixture.nodes(&prefix, NODES, &pool).await?;
        for turn in [round % 2, 1 - round % 2] {
            let mark = fixture.audit.mark();
            if turn == 0 {
                let (claims, took) = claim_at_once(&nodes, POOL).await;
                ours.add(took);
                if let Err(error) = fixture.check_no_duplicate_block(POOL, &claims).await {
                    calls.wrong += 1;
                    report.errors.push(format!("{NODES} simultaneous claims failed in round {}: {error:#}", round + 1));
                } else {
                    calls.add(fixture.calls_of_claims(mark, &prefix, NODES).await?);
                }
            } else {
                bare.add(patch_at_once(&nodes).await?);
                // Wait until the audit log contains these patches. Otherwise they would count as calls of the claims
                // that follow.
                fixture.calls_of_claims(mark, &prefix, NODES).await?;
            }
            free_all(&fixture).await?;
        }
    }
    report.add("1000 claims, bare patches", ours, Some(bare));
    report.claim_calls = Some(calls);
    drop(fixture);
    new_pool(report).await
}

/// A thousand nodes claim at the same time from a pool that has just been created. Measures how long each node waits
/// until it owns a block. The operator carves the blocks during this time.
async fn new_pool(report: &mut Report) -> Result<()> {
    eprintln!("bench: measuring {NODES} nodes that claim at once from a new pool");
    let cluster = ClaimingCluster::start(true).await?;
    cluster.create_nodes("new", NODES, &json!({})).await?;
    let nodes = cluster.fixture.nodes("new", NODES, &pool("absent", 103, None)?).await?;
    let _watch = cluster.watch_pools(&nodes);
    cluster.create_pool("new", json!({"subnets": [{"ipv4": "10.104.0.0/16"}]})).await?;
    let start = Instant::now();
    let waits = nodes.iter().map(|node| async {
        let served = node.claiming.wait_for_block("new", NEW_POOL_DEADLINE).await;
        (served, start.elapsed())
    });
    let mut times = Samples::default();
    for (node, (served, took)) in nodes.iter().zip(join_all(waits).await) {
        if served {
            times.add(took);
        } else {
            report.errors.push(format!("node {} got no block of the new pool", node.name));
        }
    }
    report.add(NEW_POOL_ROW, times, None);
    Ok(())
}

/// All nodes send a patch at the same time, each for a different block. The benchmark does not decode the answers.
async fn patch_at_once(nodes: &[ClaimingNode]) -> Result<Duration> {
    let requests = nodes
        .iter()
        .zip(0..)
        .map(|(node, index)| Ok((node.clients.requests.clone(), bare_patch(&node.name, index)?)))
        .collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    try_join_all(requests.into_iter().map(|(client, request)| async move { client.request_text(request).await }))
        .await
        .context("the bare patch of a block failed")?;
    Ok(start.elapsed())
}

/// Builds the patch of a claim, for a block that no other node patches.
fn bare_patch(node: &str, index: i64) -> Result<http::Request<Vec<u8>>> {
    let patch: Patch<()> = Patch::Json(serde_json::from_value(json!([
        {"op": "test", "path": "/spec/nodeName", "value": null},
        {"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "test", "path": "/metadata/deletionTimestamp", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]},
        {"op": "add", "path": "/spec/nodeName", "value": node},
        {"op": "add", "path": "/spec/nodeUID", "value": format!("uid-{node}")},
        {"op": "add", "path": "/spec/nodeIPv4", "value": "192.0.2.1"},
    ]))?);
    let blocks = Request::new(AddressBlock::url_path(&(), None));
    Ok(blocks.patch(&name::block(POOL, index), &PatchParams::default(), &patch)?)
}

/// Frees every claimed block, so that all blocks are again as the fixture carved them.
async fn free_all(fixture: &ClaimFixture) -> Result<()> {
    let blocks = fixture.blocks();
    let claimed =
        blocks.list(&ListParams::default()).await?.items.into_iter().filter(|one| one.spec.node_name.is_some());
    let free: Value = json!({
        "metadata": {"finalizers": null},
        "spec": {"nodeName": null, "nodeUID": null, "nodeIPv4": null, "nodeIPv6": null},
    });
    let freed = claimed.map(|block| {
        let (blocks, patch) = (blocks.clone(), Patch::Merge(free.clone()));
        let name = block.metadata.name.unwrap_or_default();
        async move { blocks.patch(&name, &PatchParams::default(), &patch).await.map(drop) }
    });
    stream::iter(freed)
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
        .context("the benchmark could not free a block")
}

#[cfg(test)]
mod tests {
    //! Tests the percentiles of API calls.

    use super::*;

    #[test]
    fn calls_of_several_rounds_have_common_percentiles() {
        let mut calls = ClaimCalls::default();
        assert_eq!(calls.percentile(50), None);
        calls.add(vec![1; 98]);
        calls.add(vec![2, 9]);
        assert_eq!([50, 99, 100].map(|percent| calls.percentile(percent)), [Some(1.0), Some(2.0), Some(9.0)]);
    }
}
