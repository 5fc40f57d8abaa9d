//! Tests pool selection. Also tests the events about pods that get no address from their pool, and about settings
//! without effect.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::cluster::Pool;
use bobbin_e2e::cluster::{Cluster, Workload};
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;
use serde_json::json;

/// How long an event may take. Kubelet repeats a failed ADD after 10 to 15 s, and the event may appear only after a
/// repetition.
const EVENT_TIMEOUT: Duration = Duration::from_secs(40);

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test(
            "the pool is selected by pod annotation, namespace annotation, namespace name, then default",
            the_order,
        ),
        suite.test(
            "a pod whose annotation names a missing pool gets a Warning and no address of another pool",
            no_such_pool,
        ),
        suite.test("a pod whose annotation names a draining pool gets a Warning", draining),
        suite.test("a pod whose annotation names a pool that its node may not use gets a Warning", not_this_node),
        suite.test("a pod with a misspelt annotation or an unserved hostPort runs and gets a Warning", without_effect),
    ]
}

async fn the_order(cluster: &mut Cluster) -> Result<()> {
    for (name, third) in [("by-pod", 1), ("by-annotation", 2), ("by-name", 3)] {
        let pool = Pool::named(name).subnet(&format!("10.71.{third}.0/24"), &format!("fd00:71::{third}00/120")).build();
        cluster.apply(&pool).await?;
        cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    }
    let annotation = ("bobbin.dev/pool", "by-annotation");
    cluster.make_namespace("by-name", &[]).await?;
    cluster.make_namespace("unnamed", &[]).await?;

    let cluster = &*cluster;
    ensure!(
        third(cluster, "unnamed", "a", None).await? == 0,
        "nothing names a pool for this pod, but it got no address of `default`"
    );
    ensure!(
        third(cluster, "by-name", "b", None).await? == 3,
        "the pod must get an address of the pool with its namespace's name, not of `default`"
    );
    ensure!(third(cluster, "by-name", "c", Some("")).await? == 3, "the agent did not ignore an empty annotation");
    cluster.make_namespace("by-name", &[annotation]).await?;
    await_seen(cluster).await?;
    ensure!(
        third(cluster, "by-name", "d", None).await? == 2,
        "the pod must get an address of the pool in its namespace's annotation"
    );
    ensure!(
        third(cluster, "by-name", "e", Some("by-pod")).await? == 1,
        "the pod must get an address of the pool in its own annotation"
    );
    Ok(())
}

/// Creates a pod and returns the third byte of its address, which identifies the pool. Returns 0 if the address is not
/// in 10.71.0.0/16.
async fn third(cluster: &Cluster, namespace: &str, name: &str, pool: Option<&str>) -> Result<u8> {
    let mut workload = Workload::pod(namespace, name);
    if let Some(pool) = pool {
        workload = workload.annotated("bobbin.dev/pool", pool);
    }
    let pod = cluster.create_ready_pod(workload).await?;
    Ok(pod.ipv4.map_or(0, |ip| if ip.octets()[1] == 71 { ip.octets()[2] } else { 0 }))
}

/// Gives the agents' watches time to show a namespace's new annotation: creates another pod, and waits until that pod
/// is Ready.
async fn await_seen(cluster: &Cluster) -> Result<()> {
    cluster.create_ready_pod(Workload::pod("unnamed", "later")).await.map(drop)
}

async fn no_such_pool(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("typo", &[]).await?;
    cluster.create_pod(&Workload::pod("typo", "a").annotated("bobbin.dev/pool", "defualt")).await?;
    cluster.await_warning("typo", "a", &["defualt"], EVENT_TIMEOUT).await?;
    nothing_is_held(cluster, "typo").await?;
    // After an administrator has created the missing pool, the pod gets its address.
    cluster.apply(Pool::named("defualt").subnet("10.72.0.0/24", "fd00:72::/120").build()).await?;
    cluster.await_ready_pod("typo", "a").await.map(drop)
}

async fn draining(cluster: &mut Cluster) -> Result<()> {
    let pool = Pool::named("old").subnet("10.73.0.0/24", "fd00:73::/120").draining().build();
    cluster.apply(&pool).await?;
    cluster
        .await_object(&pool, "the pool has a status", Duration::from_secs(20), |pool| {
            pool["status"]["observedGeneration"] == json!(1)
        })
        .await?;
    cluster.make_namespace("late", &[]).await?;
    cluster.create_pod(&Workload::pod("late", "a").annotated("bobbin.dev/pool", "old")).await?;
    cluster.await_warning("late", "a", &["old", "drain"], EVENT_TIMEOUT).await?;
    nothing_is_held(cluster, "late").await
}

async fn not_this_node(cluster: &mut Cluster) -> Result<()> {
    let pool = Pool::named("rack").subnet("10.74.0.0/24", "fd00:74::/120").for_node("n2").build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("racks", &[]).await?;
    cluster.create_ready_pod(Workload::pod("racks", "right").annotated("bobbin.dev/pool", "rack").on("n2")).await?;
    cluster.create_pod(&Workload::pod("racks", "wrong").annotated("bobbin.dev/pool", "rack").on("n1")).await?;
    cluster.await_warning("racks", "wrong", &["rack", "n1"], EVENT_TIMEOUT).await?;
    ensure!(cluster.assignments_of("racks").await?.len() == 1, "the refused pod has an address");
    Ok(())
}

async fn without_effect(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("no-effect", &[]).await?;
    let workload = Workload::pod("no-effect", "a").annotated("bobbin.dev/pol", "gold").with_host_port(18_080);
    cluster.create_ready_pod(workload).await?;
    cluster.await_warning("no-effect", "a", &["hostPort 18080/tcp", "portmap"], EVENT_TIMEOUT).await?;
    cluster.await_warning("no-effect", "a", &["bobbin.dev/pol"], EVENT_TIMEOUT).await.map(drop)
}

async fn nothing_is_held(cluster: &Cluster, namespace: &str) -> Result<()> {
    let held = cluster.assignments_of(namespace).await?;
    ensure!(held.is_empty(), "the refused pod has an address: {held:?}");
    Ok(())
}
