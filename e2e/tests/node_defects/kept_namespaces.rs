//! Tests static pods, and network namespaces that outlive the runtime's mount. A pod's address stays assigned as long
//! as the pod may be running.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{NODE, NetnsMount, Sandbox, SingleNode};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::deleted_pods::{RELEASE_TIMEOUT, SCALE, node_is_ready};
use super::{
    CONVERGENCE_TIMEOUT, addresses, await_two_stale_checks, create_small_pool, end, has_assignment, restart, scaled,
};

/// The UID of the static pod. Kubelet derives this UID from the pod's manifest.
const STATIC_UID: &str = "f00d5eedf00d5eedf00d5eedf00d5eed";

/// Waits until the agent has asked the API server twice for every missing pod. To notice this, the function creates and
/// deletes another pod, and keeps its network namespace. Then it waits until the agent has freed that pod's address.
async fn pods_read_twice(node: &SingleNode, name: &str) -> Result<()> {
    let pod = node.kube_pod("default", name, None).await?;
    node.add(&pod)?;
    let id = pod.container_id.clone();
    wait_until("the pod has its assignment", CONVERGENCE_TIMEOUT, || async {
        has_assignment(node, &pod).await.map(|()| check(true, String::new))
    })
    .await?;
    node.delete_kube_pod("default", name).await?;
    freed(node, &[&id]).await.with_context(|| format!("the agent did not free the address of the deleted pod {name}"))
}

/// Waits until no assignment names one of these containers.
async fn freed(node: &SingleNode, ids: &[&str]) -> Result<()> {
    wait_until("the agent has freed the addresses of the deleted pods", RELEASE_TIMEOUT, || async {
        let assignments = node.assignments().await?;
        let left = assignments.iter().filter(|one| ids.contains(&one.spec.container_id.as_str())).count();
        Ok(check(left == 0, || format!("{left} assignments")))
    })
    .await
    .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
}

/// Fails if a container has lost its host link.
fn is_linked(node: &SingleNode, id: &str) -> Result<()> {
    ensure!(node.attachments()?.contains_key(&format!("bobbin:{id}/eth0")), "the host link of {id} is gone");
    Ok(())
}

pub async fn static_pod(node: &mut SingleNode) -> Result<()> {
    node_is_ready(node, "True").await?;
    restart(node, &scaled(SCALE)).await?;
    let mut pod = node.sandbox()?;
    pod.is_of("default", "static", STATIC_UID);
    let mirror = serde_json::from_value(json!({
        "metadata": {"name": "static", "annotations": {
            "kubernetes.io/config.hash": STATIC_UID, "kubernetes.io/config.mirror": STATIC_UID, "kubernetes.io/config.source": "file",
        }},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "none"}]},
    }))?;
    let kube_pods: Api<KubePod> = Api::namespaced(node.client.clone(), "default");
    let mirror = kube_pods.create(&PostParams::default(), &mirror).await?;
    ensure!(
        mirror.metadata.uid.as_deref() != Some(STATIC_UID),
        "the mirror pod must not have the UID of the static pod"
    );
    let result = node.add(&pod).context("the ADD of a static pod failed")?;

    pods_read_twice(node, "beside-the-mirror").await?;
    has_assignment(node, &pod).await.context("a static pod with a mirror pod lost its assignment")?;
    node.delete_kube_pod("default", "static").await?;
    pods_read_twice(node, "after-the-mirror").await?;
    has_assignment(node, &pod).await.context("a static pod lost its assignment after its mirror pod was deleted")?;
    node.call(&pod.check(&result))?.ok().context("CHECK of a static pod failed after its mirror pod was deleted")?;

    restart(node, &[]).await?;
    end(node, vec![pod], &[]).await
}

/// Calls ADD for a pod. The ADD must fail, because no address is free.
fn finds_none(node: &SingleNode, pod: &Sandbox) -> Result<()> {
    let answer = node.call(&pod.call("ADD"))?;
    ensure!(
        answer.exit != 0,
        "a new pod got the address of a pod that still exists in the API: {}",
        answer.stdout.trim()
    );
    let error = answer.error()?;
    ensure!(error.code == 11 && error.text.contains("has no free address"), "{error:?}");
    Ok(())
}

pub async fn kept_alive(node: &mut SingleNode) -> Result<()> {
    node_is_ready(node, "True").await?;
    restart(node, &scaled(SCALE)).await?;
    create_small_pool(node, "outlived", "10.80.5.0/31", 1).await?;
    let mounted = node.kube_pod("default", "outlived-mount", Some("outlived")).await?;
    let socketed = node.kube_pod("default", "outlived-socket", Some("outlived")).await?;
    let mut held = Vec::new();
    for pod in [&mounted, &socketed] {
        held.extend(addresses(&node.add(pod)?));
    }
    let (in_mount, in_socket) = (mounted.container_id.clone(), socketed.container_id.clone());
    node.await_assignments(&[&in_mount, &in_socket], CONVERGENCE_TIMEOUT).await?;

    let mount = NetnsMount::make(&mounted.namespace, node.path("leaked-netns"))?;
    let socket = socketed.namespace.run(|| TcpListener::bind("127.0.0.1:0"))??;
    let paths = [mounted.netns.clone(), socketed.netns.clone()];
    drop((mounted, socketed));
    ensure!(!paths.iter().any(|path| Path::exists(path)), "the runtime's namespace paths still exist");
    for id in [&in_mount, &in_socket] {
        is_linked(node, id).context("the network namespace ended when the runtime removed its path")?;
    }
    await_two_stale_checks(node).await?;
    pods_read_twice(node, "outlived-none").await?;
    let next = [
        node.kube_pod("default", "outlived-next-0", Some("outlived")).await?,
        node.kube_pod("default", "outlived-next-1", Some("outlived")).await?,
    ];
    finds_none(node, &next[0])?;
    for id in [&in_mount, &in_socket] {
        is_linked(node, id)?;
    }

    for name in ["outlived-mount", "outlived-socket"] {
        node.delete_kube_pod("default", name).await?;
    }
    freed(node, &[&in_mount, &in_socket]).await?;
    let mut given = Vec::new();
    for pod in &next {
        given.extend(addresses(&node.add(pod)?));
    }
    given.sort();
    held.sort();
    ensure!(given == held, "the agent freed the addresses {held:?}, but the next pods got {given:?}");
    drop((mount, socket));
    restart(node, &[]).await?;
    end(node, next.into(), &["outlived-next-0", "outlived-next-1"]).await
}
