//! The demo: Bobbin on a cluster of three nodes.

mod keep;
mod output;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1;
use kube::api::Api;

use crate::cluster::pod::paths;
use crate::cluster::pod::{PORT, Pod};
use crate::cluster::{Cluster, Workload};
use crate::invariants;
pub use keep::{Stay, how_to_use, run_and_leave, stay, user_commands};
use output::print_output;
pub use output::print_step;

/// The number of pods in the Deployment `web`: four for each node.
const WEB: usize = 12;
/// The number of pods in the namespace `payments`, which uses a separate pool.
const PAYMENTS: usize = 3;
/// The number of addresses in the pool that becomes full.
const TINY: usize = 4;
/// How long pods may take to become Ready, even on a busy machine.
const PODS_READY_TIMEOUT: Duration = Duration::from_secs(90);

/// The results of the demo.
#[derive(Debug)]
pub struct Outcome {
    pods: usize,
    nodes: usize,
    paths: usize,
    failures: Vec<String>,
    duplicates: usize,
    spread: bool,
}

impl Outcome {
    /// Whether the demo succeeded: every path works, no two pods have the same address, and each node runs at least
    /// three pods. The demo must also have had at least 12 pods and 300 paths.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.duplicates == 0 && self.spread && self.pods >= 12 && self.paths >= 300
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let working = self.paths - self.failures.len();
        write!(
            f,
            "demo: {} pods on {} nodes, {working} of {} paths work, {} duplicates",
            self.pods, self.nodes, self.paths, self.duplicates
        )
    }
}

/// Runs the demo on a cluster whose pods have no network yet.
pub async fn run(cluster: &Cluster) -> Result<Outcome> {
    print_step(
        "helm install bobbin starts an operator, which cuts pools into blocks, and an agent on each node, which claims blocks and wires pods",
    );
    cluster.install(&[]).await?;
    print_output("kubectl get nodes", &cluster.kubectl(["get", "nodes", "-o", "wide", "--no-headers=false"])?, 4);

    print_step("the demo creates two pools: `default` for all namespaces, and `payments` for the namespace payments");
    for file in ["default", "payments"] {
        cluster.kubectl(["apply", "-f", &manifest(file)])?;
        let pool = pool(file);
        cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    }
    print_step(
        "the demo starts 12 pods in the namespace shop and 3 pods in the namespace payments, spread over the nodes",
    );
    cluster.make_namespace("shop", &[]).await?;
    cluster.make_namespace("payments", &[]).await?;
    cluster.deploy("shop", "web", WEB).await?;
    cluster.deploy("payments", "ledger", PAYMENTS).await?;
    let web = cluster.await_ready_pods("shop", "", "app=web", WEB, PODS_READY_TIMEOUT).await?;
    let ledger = cluster.await_ready_pods("payments", "", "app=ledger", PAYMENTS, PODS_READY_TIMEOUT).await?;
    let pods: Vec<Pod> = web.iter().chain(&ledger).cloned().collect();

    // Wait for the counts in the pools' status, because the operator updates them only every few seconds.
    for (file, used) in [("default", WEB), ("payments", PAYMENTS)] {
        cluster
            .await_object(pool(file), "status.used is the number of pods", PODS_READY_TIMEOUT, |seen| {
                seen["status"]["used"] == used
            })
            .await?;
    }
    print_output("kubectl get addresspools", &cluster.kubectl(["get", "addresspools"])?, 20);
    print_output(
        "kubectl get addressblocks --field-selector spec.nodeName!=",
        &cluster.kubectl(["get", "addressblocks", "--field-selector", "spec.nodeName!="])?,
        14,
    );
    print_output("kubectl get ipassignments", &cluster.kubectl(["get", "ipassignments"])?, 20);
    let node = cluster.node("n1")?;
    print_step(
        "on node n1, table 116 has a route for each pod; table 119 has a route for each block, for import by any routing daemon",
    );
    for words in [
        ["ip", "-4", "route", "show", "table", "116"],
        ["ip", "-6", "route", "show", "table", "116"],
        ["ip", "-4", "route", "show", "table", "119"],
        ["ip", "-6", "route", "show", "table", "119"],
    ] {
        print_output(&words.join(" "), &node.exec(words)?, 12);
    }

    print_step(
        "the demo opens a new connection on every path, over IPv4 and IPv6: pod to pod, pod to node, node to pod, pod to Service",
    );
    let outcome = walk(cluster, &pods, &web).await?;
    resolve(cluster, &web).await?;
    run_full(cluster).await?;
    Ok(outcome)
}

async fn walk(cluster: &Cluster, pods: &[Pod], web: &[Pod]) -> Result<Outcome> {
    let service = Api::<v1::Service>::namespaced(cluster.client(), "shop").get("web").await?;
    let addresses =
        service.spec.and_then(|spec| spec.cluster_ips).context("the Service shop/web has no cluster IPs")?;
    let service: Vec<IpAddr> = addresses.iter().filter_map(|ip| ip.parse().ok()).collect();
    let kinds = [
        ("pod to pod", paths::pod_to_pod(pods)?),
        ("pod to node", paths::pod_to_node(cluster, pods)),
        ("node to pod", paths::node_to_pod(cluster, pods)?),
        ("pod to Service", paths::pod_to_service(pods, &service, web)),
    ];
    let (mut count, mut failures) = (0, Vec::new());
    for (kind, paths) in kinds {
        let failed = tokio::task::spawn_blocking({
            let paths = paths.clone();
            move || paths::failures(&paths)
        })
        .await??;
        print_step(&format!("{kind}: {} of {} paths work", paths.len() - failed.len(), paths.len()));
        count += paths.len();
        failures.extend(failed);
    }
    for failure in failures.iter().take(10) {
        print_step(failure);
    }
    let findings = invariants::compare(&invariants::collect(cluster).await);
    let duplicates = findings.iter().filter(|finding| finding.kind.is_duplicate()).count();
    let spread = cluster.nodes().all(|node| pods.iter().filter(|pod| pod.node == node.name()).count() >= 3);
    Ok(Outcome { pods: pods.len(), nodes: cluster.nodes().count(), paths: count, failures, duplicates, spread })
}

/// Starts CoreDNS, and shows that a pod finds a Service by its name and that the API server reaches a pod.
async fn resolve(cluster: &Cluster, web: &[Pod]) -> Result<()> {
    print_step("the demo starts CoreDNS in a pod; pods find Services by name, and the API server reaches pods");
    cluster.start_dns()?;
    let pod = &web.first().context("the Deployment web has no pod")?.name;
    let request = ["-n", "shop", "exec", pod, "--", "wget", "-qO-", "http://web.shop.svc.cluster.local/hostname"];
    let answer = cluster.await_kubectl(request, PODS_READY_TIMEOUT).await?;
    print_output(&format!("kubectl {}", request.join(" ")), &answer, 2);
    let path = format!("/api/v1/namespaces/shop/pods/{pod}:{PORT}/proxy/hostname");
    let answer = cluster.await_kubectl(["get", "--raw", &path], PODS_READY_TIMEOUT).await?;
    print_output(&format!("kubectl get --raw {path}"), &answer, 2);
    Ok(())
}

/// Shows a pool with fewer addresses than pods, and the event about the waiting pod.
async fn run_full(cluster: &Cluster) -> Result<()> {
    print_step(
        "the demo creates five pods for a pool with four addresses; the fifth pod waits, and its event says why and what to do",
    );
    cluster.kubectl(["apply", "-f", &manifest("tiny")])?;
    cluster.await_condition(pool("tiny"), "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("tiny", &[]).await?;
    for number in 1..=TINY {
        cluster.create_pod(&Workload::pod("tiny", &format!("pod-{number}")).on("n1")).await?;
    }
    cluster.await_ready_pods("tiny", "", "", TINY, PODS_READY_TIMEOUT).await?;
    cluster.create_pod(&Workload::pod("tiny", "one-too-many").on("n1")).await?;
    let message = cluster.await_warning("tiny", "one-too-many", &["tiny", "n1"], Duration::from_secs(45)).await?;
    print_output("kubectl describe pod one-too-many", &message, 4);
    let nodes = cluster.kubectl(["get", "nodes", "--no-headers"])?;
    ensure!(!nodes.contains("NotReady"), "a node is NotReady while the pool tiny is full:\n{nodes}");
    print_output("kubectl get addresspool tiny", &cluster.kubectl(["get", "addresspool", "tiny"])?, 3);
    Ok(())
}

fn manifest(name: &str) -> String {
    format!("{}/demo/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

fn pool(name: &str) -> serde_json::Value {
    serde_json::json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name}})
}
