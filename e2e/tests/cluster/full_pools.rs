//! Tests full pools, and blocks that one node releases and another node claims.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::cluster::Pool;
use bobbin_e2e::cluster::{Cluster, Workload};
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

use crate::fixture::BLOCK_IDLE;

const READY_TIMEOUT: Duration = Duration::from_mins(1);

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test("a full pool is explained by an event, nodes stay Ready, and the waiting ADD gets the next released address", address_comes_free),
        suite.test("a waiting ADD gets an address of a subnet that is appended to the full pool", subnet_is_appended),
        suite.test("after all pods are deleted, every node keeps one block", back_to_the_last_block),
        suite.test("the only block of a pool moves to the node of its pod", one_block_follows),
    ]
}

/// Creates a pool of four addresses and four pods on n1 that use them. Then creates a fifth pod, which must wait for an
/// address.
async fn fill(cluster: &Cluster, name: &str, ipv4: &str, ipv6: &str) -> Result<()> {
    let pool = Pool::named(name).subnet(ipv4, ipv6).bits(2).build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace(name, &[]).await?;
    for number in 1..=4 {
        cluster.create_pod(&Workload::pod(name, &format!("pod-{number}")).on("n1")).await?;
    }
    cluster.await_ready_pods(name, "", "", 4, READY_TIMEOUT).await?;
    cluster.await_condition(&pool, "Exhausted", "True", Duration::from_secs(10)).await?;
    cluster.create_pod(&Workload::pod(name, "fifth").on("n1")).await?;
    // The event names the pool, the node, the number of addresses and a remedy. It appears at once, while the ADD still
    // waits.
    let message = cluster.await_warning(name, "fifth", &[name, "n1", "4"], Duration::from_secs(20)).await?;
    ensure!(message.contains("subnet") || message.contains("delete"), "the event names no remedy: {message}");
    Ok(())
}

async fn address_comes_free(cluster: &mut Cluster) -> Result<()> {
    fill(cluster, "full", "10.75.0.0/30", "fd00:75::/126").await?;
    cluster.await_nodes_ready().await?;
    cluster.delete_pod("full", "pod-2").await?;
    waiting_add_succeeds(cluster, "full").await?;
    cluster.await_nodes_ready().await?;
    cluster.await_invariants(Duration::from_secs(10)).await
}

async fn subnet_is_appended(cluster: &mut Cluster) -> Result<()> {
    fill(cluster, "growing", "10.76.0.0/30", "fd00:76::/126").await?;
    let grown = Pool::named("growing")
        .subnet("10.76.0.0/30", "fd00:76::/126")
        .subnet("10.76.1.0/28", "fd00:76::100/124")
        .bits(2);
    cluster.apply(grown.clone().build()).await?;
    waiting_add_succeeds(cluster, "growing").await?;
    cluster.await_condition(grown.build(), "Exhausted", "False", Duration::from_secs(10)).await.map(drop)
}

/// Checks that the fifth pod gets its address from the waiting ADD: kubelet has seen no failed ADD, and has created no
/// second sandbox.
async fn waiting_add_succeeds(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.await_ready_pod(namespace, "fifth").await?;
    let warnings = cluster.warnings_about(namespace, "fifth").await?;
    let failed: Vec<&String> = warnings.iter().filter(|warning| warning.contains("create pod sandbox")).collect();
    ensure!(failed.is_empty(), "the waiting ADD failed: {failed:?}");
    Ok(())
}

async fn back_to_the_last_block(cluster: &mut Cluster) -> Result<()> {
    let pool = Pool::named("ebb").subnet("10.77.0.0/24", "fd00:77::/120").bits(1).build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("ebb", &[]).await?;
    cluster.deploy("ebb", "web", 15).await?;
    cluster.await_ready_pods("ebb", "", "app=web", 15, Duration::from_secs(90)).await?;
    let claimed = cluster.blocks_of_pool("ebb").await?.iter().filter(|block| block.spec.node_name.is_some()).count();
    ensure!(claimed >= 8, "15 pods need at least eight blocks of two addresses, but the nodes claimed only {claimed}");
    cluster.delete_all_pods("ebb").await?;
    cluster
        .await_blocks("ebb", "every node has one block", Duration::from_secs(BLOCK_IDLE + 25), |blocks| {
            let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
            for block in blocks {
                *nodes.entry(block.spec.node_name.as_deref().unwrap_or_default()).or_default() += 1;
            }
            nodes.len() == 3 && nodes.values().all(|count| *count == 1)
        })
        .await?;
    for node in cluster.nodes() {
        let exported = node.exec(["ip", "-4", "route", "show", "table", "119"])?;
        let ours = exported.lines().filter(|line| line.starts_with("10.77.")).count();
        ensure!(ours == 1, "node {} must export one block of the pool, but exports {ours}:\n{exported}", node.name());
    }
    Ok(())
}

async fn one_block_follows(cluster: &mut Cluster) -> Result<()> {
    let pool = Pool::named("only").subnet("10.78.0.0/31", "fd00:78::/127").bits(1).build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("only", &[]).await?;
    for node in ["n1", "n2", "n3", "n1"] {
        let pod = cluster.create_ready_pod(Workload::pod("only", "nomad").on(node)).await?;
        ensure!(
            pod.node == node && pod.ipv4.is_some_and(|ip| ip.octets()[1] == 78),
            "the pod has the wrong node or the wrong address: {pod:?}"
        );
        cluster.delete_pod("only", "nomad").await?;
    }
    Ok(())
}
