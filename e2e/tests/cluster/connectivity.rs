//! Pods reach pods, nodes and Services, and nodes reach pods.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::Pool;
use bobbin_e2e::cluster::pod::FAMILIES;
use bobbin_e2e::cluster::pod::paths;
use bobbin_e2e::cluster::{Cluster, Workload};
use bobbin_e2e::suite::Suite;
use k8s_openapi::api::core::v1;
use kube::api::Api;
use libtest_mimic::Trial;

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test("pods on three nodes reach each other in both families", pods_reach_each_other),
        suite.test("pods reach nodes and Services, and nodes reach pods, in both families", pods_reach_the_rest),
        suite.test("a pool with a namespace selector serves only that namespace", a_pool_of_a_namespace),
    ]
}

async fn pods_reach_each_other(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("reach", &[]).await?;
    cluster.deploy("reach", "web", 9).await?;
    let pods = cluster.await_ready_pods("reach", "", "app=web", 9, Duration::from_secs(90)).await?;
    for node in cluster.nodes() {
        ensure!(pods.iter().any(|pod| pod.node == node.name()), "no pod runs on {}", node.name());
    }
    let failures = paths::failures(&paths::pod_to_pod(&pods)?)?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    cluster.await_invariants(Duration::from_secs(10)).await
}

async fn pods_reach_the_rest(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("rest", &[]).await?;
    cluster.deploy("rest", "web", 3).await?;
    let pods = cluster.await_ready_pods("rest", "", "app=web", 3, Duration::from_secs(90)).await?;
    let service = Api::<v1::Service>::namespaced(cluster.client(), "rest").get("web").await?;
    let service: Vec<IpAddr> = service
        .spec
        .and_then(|spec| spec.cluster_ips)
        .context("the Service has no address")?
        .iter()
        .filter_map(|ip| ip.parse().ok())
        .collect();
    ensure!(service.len() == 2, "the Service must have one address of each family, but has {service:?}");
    let mut all = paths::pod_to_node(cluster, &pods);
    all.extend(paths::node_to_pod(cluster, &pods)?);
    let failures = paths::failures(&all)?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    // Wait, because kube-proxy receives the endpoints a moment after the pods are Ready.
    let to_service = paths::pod_to_service(&pods, &service, &pods);
    bobbin_e2e::wait::wait_until("every pod reaches the Service", Duration::from_secs(20), || async {
        let failures = paths::failures(&to_service)?;
        Ok(bobbin_e2e::wait::check(failures.is_empty(), || failures.join("; ")))
    })
    .await
}

async fn a_pool_of_a_namespace(cluster: &mut Cluster) -> Result<()> {
    let pool = Pool::named("blue").subnet("10.70.0.0/24", "fd00:70::/120").for_namespace("blue").build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("blue", &[]).await?;
    cluster.make_namespace("red", &[]).await?;

    let ours = cluster.create_ready_pod(Workload::pod("blue", "ours").on("n1")).await?;
    let theirs = cluster.create_ready_pod(Workload::pod("red", "theirs").on("n2")).await?;
    ensure!(
        ours.ipv4.is_some_and(|ip| ip.octets()[1] == 70),
        "the pod in namespace blue must have an address of pool blue, but has {:?}",
        ours.ipv4
    );
    ensure!(
        theirs.ipv4.is_some_and(|ip| ip.octets()[1] == 64),
        "the pod in namespace red must have an address of pool default, but has {:?}",
        theirs.ipv4
    );
    for family in FAMILIES {
        ours.can_reach(&theirs, family)?;
    }

    cluster.create_pod(&Workload::pod("red", "thief").annotated("bobbin.dev/pool", "blue")).await?;
    let message = cluster.await_warning("red", "thief", &["blue", "red"], Duration::from_secs(40)).await?;
    ensure!(
        cluster.assignments_of("red").await?.len() == 1,
        "the refused pod has an address, although its event says: {message}"
    );
    Ok(())
}
