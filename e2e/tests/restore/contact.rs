//! Tests nodes that reach the API server as soon as it is running again.

use std::time::Instant;

use anyhow::{Result, ensure};
use bobbin_e2e::bare_nodes::{BareNodes, WAIT_TIMEOUT};
use bobbin_e2e::control_plane::Revision;

use crate::fixture::{
    BLOCK_LEN, BLOCKS, Pods, RunningAdd, SETTLE_TIMEOUT, assignments, await_outage, await_owned, delete_left_over,
    make_pool, owned, restore,
};

/// How many ADDs are waiting on each of two nodes when the API server is running again.
const WAITING: usize = 6;

pub async fn no_duplicate(nodes: &mut BareNodes, revision: Revision) -> Result<()> {
    make_pool(nodes).await?;
    let mut pods = Pods::default();
    // Let n1 own four blocks in the snapshot.
    pods.add(nodes, 1, 3 * BLOCK_LEN)?;
    await_owned(nodes, 1, 4).await?;
    pods.add(nodes, 3, 1)?;
    pods.await_assignments(nodes, WAIT_TIMEOUT).await?;
    let in_snapshot = assignments(nodes).await?;
    let snapshot = nodes.control_plane.save_snapshot()?;

    // Before etcd is lost, let n1 release most of its four blocks, and let n2 claim them. Keep some addresses of n2
    // free.
    pods.del(nodes, 1, 2 * BLOCK_LEN)?;
    await_few_blocks(nodes, 1).await?;
    fill(nodes, &mut pods, 2).await?;
    pods.del(nodes, 2, 4)?;
    pods.await_assignments(nodes, WAIT_TIMEOUT).await?;
    let moved = owned(nodes, 2).await?.len();
    ensure!(moved > 2, "n2 owns only {moved} blocks, so it may own none of the blocks that n1 had in the snapshot");

    let stopped = Instant::now();
    nodes.control_plane.stop();
    // Delete a pod and add a pod during the outage.
    pods.del(nodes, 2, 1)?;
    pods.add(nodes, 2, 1)?;
    let mut waiting = Vec::new();
    while waiting.len() < WAITING {
        waiting.push(RunningAdd::begin(nodes, 1)?);
        waiting.push(RunningAdd::begin(nodes, 3)?);
    }
    await_outage(stopped).await?;
    let before = pods.addresses()?;
    restore(nodes, &snapshot, revision).await?;

    let mut served = 0;
    for add in waiting {
        served += usize::from(add.end(nodes, &mut pods).await?);
        let twice = pods.duplicates()?;
        ensure!(twice.is_empty(), "two pods have the same addresses: {twice:?}");
    }
    pods.await_assignments_beside(&in_snapshot, nodes, SETTLE_TIMEOUT).await?;
    let now = pods.addresses()?;
    for (id, addresses) in &before {
        ensure!(
            now.get(id) == Some(addresses),
            "pod {id} had the addresses {addresses:?} and now has {:?}",
            now.get(id)
        );
    }
    let twice = pods.duplicates()?;
    ensure!(twice.is_empty(), "two pods have the same addresses: {twice:?}");
    let lost = nodes.events("BlockLost").await?.len();
    let left_over = delete_left_over(nodes, &pods).await?;
    println!(
        "restore with {revision:?}: {} pods were running before; {served} of {} waiting ADDs succeeded; {lost} events reported lost blocks; {left_over} assignments of ended pods were left",
        before.len(),
        2 * WAITING
    );
    // After all pods have ended, pods must be able to use every block again.
    pods.end(nodes).await?;
    let mut all = Pods::default();
    fill(nodes, &mut all, 3).await?;
    all.end(nodes).await
}

/// Waits until a node owns at most two blocks, because it has released the blocks of its ended pods.
async fn await_few_blocks(nodes: &BareNodes, node: usize) -> Result<()> {
    bobbin_e2e::wait::wait_until(&format!("node n{node} owns at most two blocks"), SETTLE_TIMEOUT, || async {
        let seen = owned(nodes, node).await?.len();
        Ok(bobbin_e2e::wait::check(seen <= 2, || format!("the node owns {seen} blocks")))
    })
    .await
}

/// Calls ADD for new pods on a node until no block of the pool is free.
async fn fill(nodes: &BareNodes, pods: &mut Pods, node: usize) -> Result<()> {
    for _ in 0..BLOCKS * BLOCK_LEN {
        let free = nodes.blocks("default").await?.into_iter().filter(|block| block.spec.node_name.is_none()).count();
        if free == 0 {
            return Ok(());
        }
        pods.add(nodes, node, 1)?;
    }
    Ok(())
}
