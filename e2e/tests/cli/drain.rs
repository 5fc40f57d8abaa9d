//! `drain`.

use anyhow::{Result, ensure};
use bobbin_crds::AddressPool;
use bobbin_e2e::single_node::{Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{expect, kubectl_bobbin};

async fn is_draining(node: &SingleNode, pool: &str) -> Result<bool> {
    Ok(Api::<AddressPool>::all(node.client.clone()).get(pool).await?.spec.draining)
}

async fn running_pod(node: &SingleNode, name: &str, pool: &str) -> Result<Sandbox> {
    let pod = node.kube_pod("default", name, Some(pool)).await?;
    node.add(&pod)?;
    Ok(pod)
}

pub async fn waits(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("drain", json!({"subnets": [{"ipv4": "10.91.5.0/28"}], "blockSizeBits": 2})).await?;
    node.await_free_blocks("drain").await?;
    let pod = running_pod(node, "drained", "drain").await?;
    let pods = vec![pod];
    node.await_assignments_of(&pods).await?;
    let drained = kubectl_bobbin(node, &["drain", "drain", "--timeout", "0"])?;
    expect(&drained, 3, "1 address of AddressPool drain is still in use")?;
    expect(&drained, 3, "drained")?;
    ensure!(is_draining(node, "drain").await?, "the pool is not draining");
    expect(&kubectl_bobbin(node, &["drain", "drain", "--undo"])?, 0, "not draining any more")?;
    expect(&kubectl_bobbin(node, &["drain", "drain", "--undo"])?, 0, "was not draining; nothing changed")?;
    ensure!(!is_draining(node, "drain").await?, "the pool is still draining");
    node.remove_pods(pods).await?;
    expect(&kubectl_bobbin(node, &["drain", "drain", "--timeout", "60"])?, 0, "no pod has an address")?;
    expect(&kubectl_bobbin(node, &["drain", "absent"])?, 1, "AddressPool absent")
}

pub async fn deleting(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("undone", json!({"subnets": [{"ipv4": "10.91.9.0/28"}], "blockSizeBits": 2})).await?;
    node.await_free_blocks("undone").await?;
    let pods = vec![running_pod(node, "undone", "undone").await?];
    node.await_assignments_of(&pods).await?;
    expect(
        &kubectl_bobbin(node, &["drain", "undone", "--timeout", "0"])?,
        3,
        "to undo that, run: kubectl bobbin drain undone --undo",
    )?;
    let pools: Api<AddressPool> = Api::all(node.client.clone());
    pools.delete("undone", &DeleteParams::default()).await?;
    let undo = kubectl_bobbin(node, &["drain", "undone", "--undo"])?;
    expect(&undo, 1, "AddressPool undone is being deleted since")?;
    ensure!(is_draining(node, "undone").await?, "the refused command changed the pool: {undo:?}");
    node.remove_pods(pods).await
}

/// The namespace of the pods that the command evicts.
const NAMESPACE: &str = "evicted";

/// Makes the pod look like a running pod of a ReplicaSet. The ReplicaSet does not exist.
async fn run_with_controller(pods: &Api<Pod>, pod: &str) -> Result<()> {
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1d1d1d1d-0000-4000-8000-000000000001", "controller": true,
    });
    let patch = Patch::Merge(json!({"metadata": {"ownerReferences": [owner], "labels": {"app": "r"}}}));
    pods.patch(pod, &PatchParams::default(), &patch).await?;
    let ready = json!({"type": "Ready", "status": "True"});
    let patch = Patch::Merge(json!({"status": {"phase": "Running", "conditions": [ready]}}));
    pods.patch_status(pod, &PatchParams::default(), &patch).await?;
    Ok(())
}

pub async fn evicts(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("evict", json!({"subnets": [{"ipv4": "10.91.6.0/28"}], "blockSizeBits": 2})).await?;
    node.await_free_blocks("evict").await?;
    node.make_namespace(NAMESPACE, Some("evict")).await?;
    let mut pods = Vec::new();
    for name in ["replaced", "bare"] {
        pods.push(node.kube_pod(NAMESPACE, name, None).await?);
        node.add(&pods[pods.len() - 1])?;
    }
    node.await_assignments_of(&pods).await?;
    let objects: Api<Pod> = Api::namespaced(node.client.clone(), NAMESPACE);
    run_with_controller(&objects, "replaced").await?;
    let drain = |flags: &[&str]| {
        let args = [&["drain", "evict", "--evict", "--timeout", "4"], flags].concat();
        kubectl_bobbin(node, &args)
    };
    let kept = drain(&[])?;
    expect(&kept, 3, "pod evicted/replaced is not evicted: its replacement would select AddressPool evict again")?;
    expect(&kept, 3, "pod evicted/bare is not evicted: it has no controller")?;
    // Let the namespace select another pool, so that the command wants to evict the pod `replaced`. No controller
    // updates the status of the PodDisruptionBudget, so the API server refuses the eviction.
    let moved = Patch::Merge(json!({"metadata": {"annotations": {"bobbin.dev/pool": "default"}}}));
    let namespaces: Api<Namespace> = Api::all(node.client.clone());
    namespaces.patch(NAMESPACE, &PatchParams::default(), &moved).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(node.client.clone(), NAMESPACE);
    let budget =
        json!({"metadata": {"name": "r"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "r"}}}});
    budgets.create(&PostParams::default(), &serde_json::from_value(budget)?).await?;
    let refused = drain(&[])?;
    expect(&refused, 3, "pod evicted/replaced is not evicted yet")?;
    expect(&refused, 3, "disruption budget r ")?;
    for name in ["replaced", "bare"] {
        ensure!(objects.get(name).await?.metadata.deletion_timestamp.is_none(), "pod {name} was evicted");
    }
    budgets.delete("r", &DeleteParams::default()).await?;
    expect(&drain(&[])?, 3, "pod evicted/replaced is evicted")?;
    let is_gone = async |name: &str| {
        anyhow::Ok(objects.get_opt(name).await?.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()))
    };
    wait_until("the evicted pod ends", WAIT_TIMEOUT, || async {
        Ok(check(is_gone("replaced").await?, || "it exists".to_owned()))
    })
    .await?;
    ensure!(!is_gone("bare").await?, "the pod without a controller was evicted");
    expect(&drain(&["--force"])?, 3, "pod evicted/bare is evicted")?;
    node.remove_pods(pods).await
}
