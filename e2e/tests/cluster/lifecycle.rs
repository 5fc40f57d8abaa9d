//! The tests delete pods, pools and Bobbin itself, and create them again. No two pods get the same address, and no
//! address stays assigned without a pod.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::pod::paths;
use bobbin_e2e::cluster::{Cluster, CniCall, Workload};
use bobbin_e2e::cluster::{NAMESPACE, Pool};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use libtest_mimic::Trial;
use serde_json::json;
use xtask::image::TOOLS;

use crate::fixture::VALUES;

const PODS_READY_TIMEOUT: Duration = Duration::from_secs(90);
/// The number of pods in the StatefulSet. In ten rounds, the test deletes and creates 50 pods.
const REPLICAS: usize = 5;
const ROUNDS: usize = 10;

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test(
            "StatefulSet pods recreated 50 times, and late DELs of every old container, cause no duplicate and no leak",
            fifty_times,
        ),
        suite
            .test("a pool deleted while in use names its nodes, and is gone after its last address", a_used_pool_waits),
        suite.test(
            "a pool deleted in the foreground while in use names its nodes, and is gone after its last address",
            a_used_pool_waits_in_foreground,
        ),
        suite.test(
            "helm uninstall is refused while a pod has an address, and Bobbin can still be upgraded",
            refused_uninstall,
        ),
        suite.test("uninstalling leaves nothing of Bobbin on a node", leaving),
    ]
}

async fn fifty_times(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("again", &[]).await?;
    let labels = json!({"app": "db"});
    cluster
        .apply(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "again", "name": "db"},
            "spec": {
                "replicas": REPLICAS, "serviceName": "db", "podManagementPolicy": "Parallel", "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                    "containers": [{"name": "main", "image": TOOLS, "imagePullPolicy": "Never",
                        "command": ["/agnhost", "netexec", "--http-port=8080", "--udp-port=8080"]}],
                }},
            },
        }))
        .await?;
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for _ in 0..ROUNDS {
        cluster.await_ready_pods("again", "", "app=db", REPLICAS, PODS_READY_TIMEOUT).await?;
        cluster.await_invariants(Duration::from_secs(20)).await?;
        seen.extend(containers(cluster).await?);
        let old: BTreeSet<String> = cluster
            .assignments_of("again")
            .await?
            .into_iter()
            .filter_map(|assignment| assignment.spec.pod_uid)
            .collect();
        cluster.kubectl(["-n", "again", "delete", "pod", "-l", "app=db", "--wait=false"])?;
        let old = &old;
        let cluster = &*cluster;
        wait_until("the old pods are gone", PODS_READY_TIMEOUT, || async move {
            let left = cluster
                .assignments_of("again")
                .await?
                .into_iter()
                .filter(|assignment| assignment.spec.pod_uid.as_ref().is_some_and(|uid| old.contains(uid)))
                .count();
            Ok(check(left == 0, || format!("{left} assignments of old pods still exist")))
        })
        .await?;
    }
    let pods = cluster.await_ready_pods("again", "", "app=db", REPLICAS, PODS_READY_TIMEOUT).await?;
    cluster.await_invariants(Duration::from_secs(20)).await?;
    let alive = containers(cluster).await?;
    ensure!(
        seen.is_disjoint(&alive) && seen.len() >= REPLICAS * ROUNDS,
        "the test has seen only {} old containers, or an old container is still alive",
        seen.len()
    );

    let before = cluster.assignments_of("again").await?;
    for (node, container) in &seen {
        let answer = cluster.shim(node, &CniCall::late_del(container))?;
        ensure!(answer.ok, "a late DEL of {container} on {node} failed: {}", answer.said);
    }
    ensure!(
        cluster.assignments_of("again").await?.len() == before.len(),
        "a late DEL freed the address of a running pod"
    );
    cluster.await_invariants(Duration::from_secs(20)).await?;
    let failures = paths::failures(&paths::pod_to_pod(&pods)?)?;
    ensure!(failures.is_empty(), "pods can't reach each other after the late DELs: {}", failures.join("\n"));
    Ok(())
}

/// The node and the container ID of each assignment in the test's namespace.
async fn containers(cluster: &Cluster) -> Result<BTreeSet<(String, String)>> {
    let assignments = cluster.assignments_of("again").await?;
    Ok(assignments.into_iter().map(|assignment| (assignment.spec.node_name, assignment.spec.container_id)).collect())
}

async fn a_used_pool_waits(cluster: &mut Cluster) -> Result<()> {
    waits_then_goes(cluster, "going", 82, false).await
}

async fn a_used_pool_waits_in_foreground(cluster: &mut Cluster) -> Result<()> {
    waits_then_goes(cluster, "going-first", 83, true).await
}

async fn waits_then_goes(cluster: &Cluster, name: &str, second: u8, foreground: bool) -> Result<()> {
    let pool = Pool::named(name).subnet(&format!("10.{second}.0.0/24"), &format!("fd00:{second}::/120")).build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace(name, &[]).await?;
    let one = cluster.create_ready_pod(Workload::pod(name, "one").on("n1")).await?;
    let two = cluster.create_ready_pod(Workload::pod(name, "two").on("n2")).await?;
    wait_until("the API server refuses the deletion of a pool in use", Duration::from_secs(20), || async {
        // Use a dry run. The API server refuses the deletion only after the pool's status counts the pods' addresses.
        // Before that, a real deletion would take effect.
        let answer = cluster.kubectl(["delete", "addresspool", name, "--dry-run=server"]);
        let refused = answer.err().is_some_and(|error| format!("{error:#}").contains("drain it first"));
        Ok(check(refused, || "the API server accepts the deletion".to_owned()))
    })
    .await?;
    cluster.drain_pool(name).await?;
    if foreground {
        cluster.delete_in_foreground(&pool).await?;
    } else {
        cluster.delete(&pool).await?;
    }
    let seen = cluster.await_condition(&pool, "Terminating", "True", Duration::from_secs(15)).await?;
    let message =
        bobbin_e2e::cluster::condition_of(&seen, "Terminating")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(
        message.contains('2') && message.contains("n1") && message.contains("n2"),
        "the condition does not name both nodes that use the pool: {message:?}"
    );
    // While the pool is being deleted, its pods keep their network.
    one.can_reach(&two, bobbin_e2e::cluster::pod::Family::V4)?;
    ensure!(
        cluster.blocks_of_pool(name).await?.iter().any(|block| block.spec.node_name.as_deref() == Some("n1")),
        "the block of a running pod is gone"
    );
    cluster.delete_all_pods(name).await?;
    cluster.await_gone(&pool, Duration::from_secs(40)).await?;
    ensure!(cluster.blocks_of_pool(name).await?.is_empty(), "the pool is gone, but some of its blocks still exist");
    Ok(())
}

async fn refused_uninstall(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("stays", &[]).await?;
    let one = cluster.create_ready_pod(Workload::pod("stays", "one").on("n1")).await?;
    let answer = cluster.uninstall().await;
    let error = answer.err().context("helm uninstall succeeded although a pod has an address")?;
    ensure!(
        format!("{error:#}").contains("bobbin-uninstall-check"),
        "Helm's error does not name the uninstall check: {error:#}"
    );
    let log = cluster.kubectl(["-n", NAMESPACE, "logs", "job/bobbin-uninstall-check"])?;
    ensure!(
        log.contains("stays/one on node n1") && log.contains("--no-hooks"),
        "the log of the uninstall check names no remedy: {log}"
    );
    let rollback = log
        .split_once("run: helm rollback bobbin ")
        .context("the log of the uninstall check names no rollback command")?
        .1;
    let revision = rollback.split_once(' ').context("the rollback command names no revision")?.0;
    cluster.helm(["rollback", "bobbin", revision, "--namespace", NAMESPACE])?;
    cluster.install(&VALUES).await.context("the upgrade after a refused uninstall failed")?;
    let two = cluster.create_ready_pod(Workload::pod("stays", "two").on("n2")).await?;
    one.can_reach(&two, bobbin_e2e::cluster::pod::Family::V4)
}

async fn leaving(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("last", &[]).await?;
    cluster.create_ready_pod(Workload::pod("last", "holds-out").on("n1")).await?;
    let mut values = VALUES.to_vec();
    values.extend(["agent.mode=remove", "agent.maxUnavailable=100%"]);
    cluster.roll_out(&values)?;
    // The agents of nodes without pods remove Bobbin at once. The agent of n1 waits until the node's pod is gone.
    for name in ["n2", "n3"] {
        await_clean(cluster, name).await?;
    }
    let node = cluster.node("n1")?;
    ensure!(
        !node.exec(["ip", "route", "show", "table", "116"])?.is_empty(),
        "n1 lost its routes, although a pod still needs them"
    );
    cluster.delete_all_pods("last").await?;
    await_clean(cluster, "n1").await?;

    // Install Bobbin again for the tests after this one.
    cluster.install(&VALUES).await?;
    cluster.make_namespace("last", &[]).await?;
    cluster.create_ready_pod(Workload::pod("last", "first").on("n1")).await.map(drop)
}

/// Waits until a node has no file, rule, link, nftables table or route of Bobbin.
async fn await_clean(cluster: &Cluster, name: &str) -> Result<()> {
    let node = cluster.node(name)?;
    wait_until(&format!("node {name} has nothing of Bobbin left"), Duration::from_mins(1), || async move {
        let mut left = Vec::new();
        for (words, sign) in [
            (&["ls", "/etc/cni/net.d"][..], "bobbin"),
            (&["ls", "/opt/cni/bin"], "bobbin"),
            (&["ip", "rule"], "2000:"),
            (&["ip", "-6", "rule"], "2000:"),
            (&["ip", "link"], "bob"),
            (&["nft", "list", "tables"], "bobbin"),
        ] {
            let seen = node.exec(words)?;
            left.extend(seen.lines().filter(|line| line.contains(sign)).map(str::to_owned));
        }
        for (family, table) in [("-4", "116"), ("-4", "119"), ("-6", "116"), ("-6", "119")] {
            // Ignore errors, because `ip` reports an error for a route table that was never used.
            let seen = node.exec(["ip", family, "route", "show", "table", table]).unwrap_or_default();
            left.extend(seen.lines().map(str::to_owned));
        }
        Ok(check(left.is_empty(), || left.join("; ")))
    })
    .await
    .with_context(|| format!("Bobbin was not removed from node {name}"))
}
