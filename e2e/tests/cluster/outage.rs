//! The tests stop agents, operators or the API server. Running pods must not notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::pod::{FAMILIES, PORT, who_answers};
use bobbin_e2e::cluster::{Cluster, NAMESPACE, Workload, not_ready};
use bobbin_e2e::network::Namespace;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::VALUES;
use crate::probe::Probes;

const PODS_READY_TIMEOUT: Duration = Duration::from_secs(90);

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test("all agents deleted at once: probes lose nothing, nodes stay Ready, EndpointSlices do not change, no duplicate", all_agents_deleted),
        suite.test("helm upgrade under running pods loses nothing", helm_upgrade),
        suite.test("pods start and stop while API server and operator are stopped", api_server_and_operator_stopped),
    ]
}

async fn all_agents_deleted(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("steady", &[]).await?;
    cluster.deploy("steady", "web", 6).await?;
    let pods = cluster.await_ready_pods("steady", "", "app=web", 6, PODS_READY_TIMEOUT).await?;
    let from = pods.first().context("no pod is running")?;
    let to = pods.iter().find(|pod| pod.node != from.node).context("all pods are on one node")?;
    let slices = settled_slices(cluster, pods.len()).await?;
    let probes = Probes::start(from, to)?;

    let agents: Api<v1::Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/component=agent");
    let old: Vec<String> = agents.list(&selector).await?.items.iter().filter_map(ResourceExt::uid).collect();
    ensure!(old.len() == cluster.nodes().count(), "{} agents run", old.len());
    agents.delete_collection(&DeleteParams::default().grace_period(0), &selector).await?;
    let (agents, selector, old) = (&agents, &selector, &old);
    let nodes: Api<v1::Node> = Api::all(cluster.client());
    let nodes = &nodes;
    wait_until("all agents have been replaced and are Ready", PODS_READY_TIMEOUT, || async move {
        for node in nodes.list(&ListParams::default()).await?.items {
            if let Some(why) = not_ready(&node) {
                // Fail at once instead of retrying, because no node may become NotReady.
                return Ok(Poll::Ready(Err(anyhow::anyhow!("node {} became NotReady: {why}", node.name_any()))));
            }
        }
        let now = agents.list(selector).await?.items;
        let new = now.iter().filter(|pod| !old.contains(&pod.uid().unwrap_or_default()) && is_ready(pod)).count();
        Ok(if new == old.len() { Poll::Ready(Ok(())) } else { Poll::Pending(format!("{new} new agents are Ready")) })
    })
    .await??;
    cluster.create_ready_pod(Workload::pod("steady", "late").on(&to.node)).await?;

    probes.must_have_lost_nothing()?;
    let now = endpoint_slices(cluster).await?;
    ensure!(versions(&now) == versions(&slices), "an EndpointSlice changed: it was {slices:?} and is {now:?}");
    cluster.await_invariants(Duration::from_secs(20)).await
}

/// Waits until each pod is a ready endpoint, and returns the EndpointSlices of the test's Service.
async fn settled_slices(cluster: &Cluster, pods: usize) -> Result<Vec<EndpointSlice>> {
    wait_until("every pod is a ready endpoint in both families", PODS_READY_TIMEOUT, || async {
        let ready: Vec<usize> = endpoint_slices(cluster).await?.iter().map(ready_endpoints).collect();
        Ok(check(ready == [pods; FAMILIES.len()], || format!("the EndpointSlices have {ready:?} ready endpoints")))
    })
    .await?;
    endpoint_slices(cluster).await
}

fn ready_endpoints(slice: &EndpointSlice) -> usize {
    let ready =
        |endpoint: &&Endpoint| endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true));
    slice.endpoints.iter().filter(ready).count()
}

async fn endpoint_slices(cluster: &Cluster) -> Result<Vec<EndpointSlice>> {
    Ok(Api::<EndpointSlice>::namespaced(cluster.client(), "steady").list(&ListParams::default()).await?.items)
}

/// The name and the resourceVersion of each EndpointSlice.
fn versions(slices: &[EndpointSlice]) -> Vec<(String, Option<String>)> {
    slices.iter().map(|slice| (slice.name_any(), slice.resource_version())).collect()
}

fn is_ready(pod: &v1::Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn helm_upgrade(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("upgraded", &[]).await?;
    let from = cluster.create_ready_pod(Workload::pod("upgraded", "from").on("n1")).await?;
    let to = cluster.create_ready_pod(Workload::pod("upgraded", "to").on("n2")).await?;
    let probes = Probes::start(&from, &to)?;
    let mut values = VALUES.to_vec();
    // Change the pod templates of agent and operator, so that Kubernetes replaces all their pods.
    values.extend(["agent.logFormat=json", "operator.logFormat=json", "agent.maxUnavailable=100%"]);
    cluster.install(&values).await?;
    cluster.kubectl(["-n", NAMESPACE, "rollout", "status", "daemonset/bobbin-agent", "--timeout=60s"])?;
    cluster.create_ready_pod(Workload::pod("upgraded", "later").on("n1")).await?;
    probes.must_have_lost_nothing()?;
    cluster.await_invariants(Duration::from_secs(20)).await
}

/// Starts and ends a pod while the API server and the operator are stopped. The pod is a static pod, because kubelet
/// starts static pods from files without the API server.
async fn api_server_and_operator_stopped(cluster: &mut Cluster) -> Result<()> {
    // The UID of the static pod. The pod's manifest contains this UID, because the API server assigns none.
    const UID: &str = "5ca1ab1e000040008000000000000001";
    // Before the outage, let the agent of n1 learn the namespace and the pool, and claim a block.
    cluster.make_namespace("dark", &[]).await?;
    let before = cluster.create_ready_pod(Workload::pod("dark", "before").on("n1")).await?;
    cluster.kubectl(["-n", NAMESPACE, "scale", "deployment/bobbin-operator", "--replicas=0"])?;
    cluster.await_no_pods_labelled(NAMESPACE, "app.kubernetes.io/component=operator", Duration::from_secs(30)).await?;
    cluster.control_plane_mut().stop_apiserver();

    let mut manifest = Workload::pod("dark", "static").manifest();
    manifest["metadata"]["uid"] = json!(UID);
    let file = cluster.node("n1")?.path("/etc/kubernetes/manifests/static.json")?;
    std::fs::write(&file, manifest.to_string())?;
    let node = cluster.node("n1")?;
    let address =
        wait_until("a static pod runs and can be reached while the API server is down", PODS_READY_TIMEOUT, || async {
            let Some(pid) = node.processes_of_pod(UID).first().copied() else {
                return Ok(Poll::Pending("the static pod has no process".to_owned()));
            };
            let own = Namespace::at(format!("/proc/{pid}/ns/net").as_ref())?;
            let text = own.command("ip").args(["-4", "-o", "addr", "show", "dev", "eth0"]).output()?;
            let text = String::from_utf8_lossy(&text.stdout).into_owned();
            let Some(address) = text.split_whitespace().skip_while(|word| *word != "inet").nth(1) else {
                return Ok(Poll::Pending(text));
            };
            let address: std::net::IpAddr = address.split('/').next().unwrap_or_default().parse()?;
            before.netns().run(move || who_answers((address, PORT).into()))??;
            Ok(Poll::Ready(address))
        })
        .await?;
    ensure!(Some(address) != before.ipv4.map(Into::into), "the static pod got the address of another pod");
    std::fs::remove_file(&file)?;
    wait_until("the static pod stops while the API server is down", PODS_READY_TIMEOUT, || async {
        let routes = node.exec(["ip", "-4", "route", "show", "table", "116"])?;
        let left = routes.lines().any(|line| line.starts_with(&format!("{address} ")));
        Ok(check(!left && node.processes_of_pod(UID).is_empty(), || routes))
    })
    .await?;

    cluster.control_plane_mut().start_apiserver().await?;
    cluster.kubectl(["-n", NAMESPACE, "scale", "deployment/bobbin-operator", "--replicas=2"])?;
    cluster.kubectl(["-n", NAMESPACE, "rollout", "status", "deployment/bobbin-operator", "--timeout=90s"])?;
    cluster.await_nodes_ready().await?;
    cluster.await_invariants(Duration::from_mins(1)).await
}
