//! A cluster moves from `ptp` with `host-local` to Bobbin, and back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::pod::Pod;
use bobbin_e2e::cluster::{Cluster, ClusterOptions, NAMESPACE, Network, Pool};
use bobbin_e2e::suite::{NoFixture, Suite};
use libtest_mimic::Trial;

use crate::probe::Probes;
use crate::router::Daemons;
use crate::steps::{PODS, all_reach_each_other, bring_in, drain, take_out, uncordon};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The second byte of the pods' IPv4 addresses: `HOST_LOCAL` for addresses of `host-local`, and `POOL` for addresses of
/// the pool.
const HOST_LOCAL: u8 = 244;
const POOL: u8 = 64;
/// The chart value that lets the agent run only on nodes with the label `bobbin.dev/agent=run`.
const ONLY_LABELLED: &str = r"agent.nodeSelector.bobbin\.dev/agent=run";
/// The chart values in all steps. Bobbin's own routing is off, because BIRD distributes the routes.
const VALUES: [&str; 3] = ["network.routing=none", "agent.maxUnavailable=100%", "operator.statusInterval=1s"];

pub fn tests(suite: &Suite<NoFixture>) -> Vec<Trial> {
    vec![suite.test(
        "a cluster moves from ptp and host-local to Bobbin and back node by node, and pods on the other nodes always reach each other",
        there_and_back,
    )]
}

async fn there_and_back(_: &mut NoFixture) -> Result<()> {
    let options = ClusterOptions { network: Network::ReferenceThenBobbin, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await?;
    let result = moves(&cluster).await;
    if result.is_err() {
        eprintln!("{}", cluster.describe_state());
    }
    result
}

async fn moves(cluster: &Cluster) -> Result<()> {
    cluster.await_nodes_ready().await?;
    let _daemons = Daemons::start(cluster)?;
    cluster.make_namespace(PODS.0, &[]).await?;
    cluster.deploy(PODS.0, "web", PODS.1).await?;
    let before = all_reach_each_other(cluster).await?;
    must_have_addresses(&before, |_| HOST_LOCAL)?;

    install(cluster).await?;
    for (moved, node) in NODES.into_iter().enumerate() {
        let probes = drain_while_others_are_probed(cluster, node).await?;
        bring_in(cluster, node, "bobbin.dev/agent=run").with_context(|| format!("{node} did not get Bobbin"))?;
        let pods = back_in_service(cluster, node, probes).await?;
        must_have_addresses(&pods, |number| if number <= moved { POOL } else { HOST_LOCAL })?;
    }
    comes_back_without_the_label(cluster).await?;
    for (moved, node) in NODES.into_iter().enumerate() {
        let probes = drain_while_others_are_probed(cluster, node).await?;
        take_out(cluster, node).await?;
        let pods = back_in_service(cluster, node, probes).await?;
        must_have_addresses(&pods, |number| if number <= moved { HOST_LOCAL } else { POOL })?;
    }
    uninstall(cluster).await
}

/// Installs Bobbin while no node has the label. Checks that no agent runs.
async fn install(cluster: &Cluster) -> Result<()> {
    let mut values = VALUES.to_vec();
    values.push(ONLY_LABELLED);
    cluster.roll_out(&values)?;
    let pool = Pool::named("default").subnet("10.64.0.0/20", "fd00:64::/116").build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(30)).await?;
    let agents = cluster.kubectl([
        "-n",
        NAMESPACE,
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component in (agent,agent-remove)",
    ])?;
    ensure!(agents.is_empty(), "agents run although no node has the label:\n{agents}");
    Ok(())
}

/// Starts probes between the pods on the other nodes, and drains the node.
async fn drain_while_others_are_probed(cluster: &Cluster, node: &str) -> Result<Vec<Probes>> {
    let pods = all_reach_each_other(cluster).await?;
    let others: Vec<&Pod> = pods.iter().filter(|pod| pod.node != node).collect();
    let [one, two] = others[..] else { anyhow::bail!("{} pods run on the other nodes", others.len()) };
    let probes = vec![Probes::start(one, two)?, Probes::start(two, one)?];
    drain(cluster, node)?;
    Ok(probes)
}

/// Lets pods start on the node again. Fails if the probes between the other nodes have lost an answer.
async fn back_in_service(cluster: &Cluster, node: &str, probes: Vec<Probes>) -> Result<Vec<Pod>> {
    uncordon(cluster, node)?;
    let mut pods = all_reach_each_other(cluster).await?;
    for probe in probes {
        probe.must_have_lost_nothing().with_context(|| format!("the move of {node} disturbed other nodes"))?;
    }
    pods.sort_by(|one, two| one.node.cmp(&two.node));
    Ok(pods)
}

/// With the chart's own node selector, the agent runs on every node without the label `bobbin.dev/agent=remove`. So
/// setting this label takes the node out, and removing the label brings the node back.
async fn comes_back_without_the_label(cluster: &Cluster) -> Result<()> {
    let mut values = VALUES.to_vec();
    values.push(r"agent.nodeSelector.bobbin\.dev/agent=null");
    cluster.roll_out(&values)?;
    drain(cluster, "n1")?;
    take_out(cluster, "n1").await?;
    bring_in(cluster, "n1", "bobbin.dev/agent-")?;
    uncordon(cluster, "n1")?;
    let pods = all_reach_each_other(cluster).await?;
    must_have_addresses(&pods, |_| POOL)?;
    cluster.kubectl(["delete", "events", "-A", "--field-selector", "reason=Removed"]).map(drop)
}

async fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(["delete", "addresspools", "--all", "--wait", "--timeout=60s"])?;
    cluster.uninstall().await?;
    for node in NODES {
        cluster.kubectl(["label", "node", node, "bobbin.dev/agent-"])?;
    }
    let pods = all_reach_each_other(cluster).await?;
    must_have_addresses(&pods, |_| HOST_LOCAL)
}

/// Checks the second byte of each pod's IPv4 address. `expected` gets the position of the pod in the list, and returns
/// the expected byte.
fn must_have_addresses(pods: &[Pod], expected: impl Fn(usize) -> u8) -> Result<()> {
    for (number, pod) in pods.iter().enumerate() {
        let range = pod.ipv4.context("a pod has no IPv4 address")?.octets()[1];
        ensure!(
            range == expected(number),
            "pod {} on {} has the address {:?}, but must have one of 10.{}.0.0/16",
            pod.name,
            pod.node,
            pod.ipv4,
            expected(number)
        );
    }
    Ok(())
}
