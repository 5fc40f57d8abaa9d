//! The tests delete nodes, and let nodes lose power and boot again. They also kill kubelets and container runtimes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::cluster::pod::FAMILIES;
use bobbin_e2e::cluster::{Cluster, Workload};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use libtest_mimic::Trial;

use crate::fixture::NODE_GRACE_PERIOD;

/// The number of pods that start at once.
const BURST: usize = 100;
const BURST_TIMEOUT: Duration = Duration::from_mins(3);

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test("after a power cut and a boot, a node's old addresses are free and new pods run", power_cut),
        suite.test("the blocks of a deleted node are free again", node_deleted),
        suite.test(
            "100 pods start although kubelet and containerd are killed meanwhile, without a leak",
            killed_in_a_burst,
        ),
    ]
}

async fn power_cut(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("dusk", &[]).await?;
    for number in 0..3 {
        cluster.create_ready_pod(Workload::pod("dusk", &format!("old-{number}")).on("n3")).await?;
    }
    let witness = cluster.create_ready_pod(Workload::pod("dusk", "witness").on("n1")).await?;
    let old: BTreeSet<String> = cluster
        .assignments_of("dusk")
        .await?
        .into_iter()
        .filter(|assignment| assignment.spec.node_name == "n3")
        .map(|assignment| assignment.spec.container_id)
        .collect();
    ensure!(old.len() == 3, "{} assignments of n3", old.len());

    cluster.node_mut("n3")?.power_cut();
    cluster.kubectl(["-n", "dusk", "delete", "pod", "old-0", "old-1", "old-2", "--force", "--grace-period=0"])?;
    cluster.node_mut("n3")?.boot()?;
    cluster.await_nodes_ready().await?;

    let new = cluster.create_ready_pod(Workload::pod("dusk", "new").on("n3")).await?;
    for family in FAMILIES {
        witness.can_reach(&new, family)?;
        new.can_reach(&witness, family)?;
    }
    let (cluster, old) = (&*cluster, &old);
    wait_until("the old addresses are free", Duration::from_secs(40), || async move {
        let assignments = cluster.assignments().await?;
        let left = assignments.iter().filter(|assignment| old.contains(&assignment.spec.container_id)).count();
        Ok(check(left == 0, || format!("{left} old assignments are left")))
    })
    .await?;
    cluster.await_invariants(Duration::from_secs(20)).await
}

async fn node_deleted(cluster: &mut Cluster) -> Result<()> {
    cluster.add_nodes(&["n4".to_owned()]).await?;
    cluster.await_nodes_ready().await?;
    cluster.make_namespace("gone", &[]).await?;
    cluster.create_ready_pod(Workload::pod("gone", "a").on("n4")).await?;
    ensure!(!cluster.blocks_of_node("n4").await?.is_empty(), "n4 must have a block before the test deletes n4");

    cluster.remove_node("n4").await?;
    let cluster = &*cluster;
    wait_until("the blocks and addresses of n4 are free", Duration::from_secs(NODE_GRACE_PERIOD + 40), || async move {
        let blocks = cluster.blocks_of_node("n4").await?.len();
        let assignments =
            cluster.assignments().await?.iter().filter(|assignment| assignment.spec.node_name == "n4").count();
        Ok(check(blocks == 0 && assignments == 0, || {
            format!("n4 still has {blocks} blocks and {assignments} assignments")
        }))
    })
    .await
}

async fn killed_in_a_burst(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("burst", &[]).await?;
    cluster.deploy("burst", "burst", BURST).await?;
    let cluster = &*cluster;
    // At each kill, some sandboxes have had no ADD yet, some are in their ADD, and some are running. Kill the kubelets
    // first, because a killed containerd leaves half-created containers. For each of these, a starting kubelet waits
    // some seconds (in its cAdvisor), and no pod starts meanwhile.
    for (program, started) in [("kubelet", 5), ("kubelet", 20), ("containerd", 40), ("containerd", 60)] {
        wait_until(&format!("{started} pods have addresses"), BURST_TIMEOUT, || async move {
            let count = cluster.assignments_of("burst").await?.len();
            Ok(check(count >= started, || format!("{count}")))
        })
        .await?;
        for node in ["n1", "n2", "n3"] {
            cluster.node(node)?.kill_program(program).await?;
        }
    }
    cluster.await_ready_pods("burst", "", "app=burst", BURST, BURST_TIMEOUT).await?;
    cluster.await_invariants(BURST_TIMEOUT).await?;
    cluster.delete_all_pods("burst").await?;
    cluster.await_invariants(BURST_TIMEOUT).await?;
    cluster.await_nodes_ready().await
}
