//! The steps of `docs/migration.md`, with the commands of an administrator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::pod::{Pod, paths};
use bobbin_e2e::cluster::{Cluster, NAMESPACE};
use bobbin_e2e::wait::{check, wait_until};

/// How long one step may take, even on a busy machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);
/// The namespace and the number of the pods that must always reach each other. One pod runs on each node.
pub const PODS: (&str, usize) = ("moving", 3);
/// The files that the agent installs on a node.
const FILES: [&str; 2] = ["/etc/cni/net.d/10-bobbin.conflist", "/opt/cni/bin/bobbin"];

/// Cordons the node and evicts its pods. DaemonSet pods stay.
pub fn drain(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.kubectl(["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s"]).map(drop)
}

/// Lets the scheduler use the node again.
pub fn uncordon(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.kubectl(["uncordon", node]).map(drop)
}

/// Labels the node, so that Bobbin's agent runs there, and waits until the agent is Ready.
pub fn bring_in(cluster: &Cluster, node: &str, label: &str) -> Result<()> {
    cluster.kubectl(["label", "node", node, label, "--overwrite"])?;
    let field = format!("spec.nodeName={node}");
    for condition in ["--for=create", "--for=condition=Ready"] {
        cluster.kubectl([
            "-n",
            NAMESPACE,
            "wait",
            "pod",
            condition,
            "-l",
            "app.kubernetes.io/component=agent",
            "--field-selector",
            &field,
            "--timeout=90s",
        ])?;
    }
    for file in FILES {
        cluster.node(node)?.exec(["test", "-e", file]).with_context(|| {
            format!("the agent of {node} is Ready, but has not installed {file}, so new pods get the old plugin")
        })?;
    }
    Ok(())
}

/// Labels the node, so that the agent removes Bobbin from it, and waits until the event `Removed` reports the end.
pub async fn take_out(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.kubectl(["label", "node", node, "bobbin.dev/agent=remove", "--overwrite"])?;
    let selector = format!("reason=Removed,involvedObject.name={node}");
    wait_until(&format!("an event reports that Bobbin was removed from {node}"), STEP_TIMEOUT, || async {
        let events = cluster.kubectl(["get", "events", "-A", "--field-selector", &selector, "--no-headers"])?;
        Ok(check(events.contains("Bobbin was removed"), || events))
    })
    .await?;
    wait_until(&format!("Bobbin is gone from {node}"), STEP_TIMEOUT, || async {
        let machine = cluster.node(node)?;
        let mut left: Vec<String> = FILES
            .iter()
            .filter(|file| machine.exec(["test", "-e", file]).is_ok())
            .map(|file| (*file).to_owned())
            .collect();
        left.extend(machine.exec(["ip", "rule"])?.lines().filter(|line| line.contains("2000:")).map(str::to_owned));
        let blocks = cluster.blocks_of_node(node).await?;
        left.extend(blocks.iter().filter_map(|block| block.metadata.name.clone()));
        Ok(check(left.is_empty(), || left.join(", ")))
    })
    .await
}

/// Waits until each node runs one of the pods, and until all paths between these pods work.
pub async fn all_reach_each_other(cluster: &Cluster) -> Result<Vec<Pod>> {
    let (namespace, count) = PODS;
    let pods = cluster.await_ready_pods(namespace, "", "app=web", count, STEP_TIMEOUT).await?;
    for node in cluster.nodes() {
        ensure!(pods.iter().any(|pod| pod.node == node.name()), "no pod runs on {}", node.name());
    }
    let all = &paths::pod_to_pod(&pods)?;
    wait_until("all pods reach each other", STEP_TIMEOUT, || async move {
        let all = all.clone();
        let failures = tokio::task::spawn_blocking(move || paths::failures(&all)).await??;
        Ok(check(failures.is_empty(), || failures.join("; ")))
    })
    .await?;
    Ok(pods)
}
