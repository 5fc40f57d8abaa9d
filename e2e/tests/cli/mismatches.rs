//! What `who` and `explain` say if the IPAssignments and the pods disagree. The agent does not run, so it can't repair anything.

use anyhow::{Context, Result, ensure};
use bobbin_crds::IPAssignment;
use bobbin_e2e::single_node::{NODE, Sandbox, SingleNode};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{expect, kubectl_bobbin};

/// Creates a pool, and a pod of this pool with the same name. Returns the pod and its addresses of both families.
async fn pair(node: &SingleNode, name: &str, subnets: Value) -> Result<(Sandbox, Vec<String>)> {
    node.apply_pool(name, json!({"subnets": subnets, "blockSizeBits": 2})).await?;
    node.await_free_blocks(name).await?;
    let pod = node.kube_pod("default", name, Some(name)).await?;
    let result = node.add(&pod)?;
    let ips = result["ips"].as_array().context("the result has no addresses")?;
    let address = |ip: &Value| Some(ip["address"].as_str()?.split('/').next()?.to_owned());
    let addresses: Vec<String> = ips.iter().filter_map(address).collect();
    ensure!(addresses.len() == 2, "{result}");
    Ok((pod, addresses))
}

/// A pod reports its addresses, but its IPAssignment is deleted while the agent does not run.
pub async fn unrecorded(node: &mut SingleNode) -> Result<()> {
    let (pod, addresses) =
        pair(node, "unrecorded", json!([{"ipv4": "10.91.24.0/28", "ipv6": "fd00:9124::/124"}])).await?;
    let pods = [pod];
    node.await_assignments_of(&pods).await?;
    node.kill_agent();
    let ips: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
    let status = json!({"status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips}});
    let objects: Api<Pod> = Api::namespaced(node.client.clone(), "default");
    objects.patch_status("unrecorded", &PatchParams::default(), &Patch::Merge(status)).await?;
    let own =
        node.assignments().await?.into_iter().next().and_then(|one| one.metadata.name).context("no assignment")?;
    Api::<IPAssignment>::all(node.client.clone()).delete(&own, &DeleteParams::default()).await?;
    for address in &addresses {
        let found = kubectl_bobbin(node, &["who", address])?;
        expect(&found, 0, &format!("pod default/unrecorded on node {NODE} reports this address, but no IPAssignment"))?;
        let json = kubectl_bobbin(node, &["who", address, "-o", "json"])?.json()?;
        ensure!(json["state"] == "unrecorded" && json["pod"] == "unrecorded" && json["node"] == NODE, "{json}");
    }
    let found = kubectl_bobbin(node, &["explain", "pod/unrecorded"])?;
    expect(&found, 0, &format!("{}, as the pod reports; no IPAssignment records it", addresses.join(" and ")))?;
    let json = kubectl_bobbin(node, &["explain", "default/unrecorded", "-o", "json"])?.json()?;
    ensure!(json["reportedAddresses"] == json!(addresses) && json["addresses"] == json!([]), "{json}");
    node.start_agent().await?;
    node.await_assignments_of(&pods).await?;
    node.delete_kube_pod("default", "unrecorded").await?;
    node.remove_pods(pods.into()).await
}

/// The pod of an IPAssignment is deleted while the agent does not run.
pub async fn gone(node: &mut SingleNode) -> Result<()> {
    let (pod, addresses) = pair(node, "gone", json!([{"ipv4": "10.91.25.0/28", "ipv6": "fd00:9125::/124"}])).await?;
    let pods = [pod];
    node.await_assignments_of(&pods).await?;
    let json = kubectl_bobbin(node, &["who", &addresses[1], "-o", "json"])?.json()?;
    ensure!(json["state"] == "assigned" && json.get("mismatch").is_none(), "{json}");
    node.kill_agent();
    node.delete_kube_pod("default", "gone").await?;
    for address in &addresses {
        let found = kubectl_bobbin(node, &["who", address])?;
        expect(&found, 0, "says that pod default/gone")?;
        expect(&found, 0, "but pod default/gone does not exist")?;
        let json = kubectl_bobbin(node, &["who", address, "-o", "json"])?.json()?;
        ensure!(json["state"] == "assigned" && json["mismatch"]["reason"] == "pod-gone", "{json}");
    }
    node.start_agent().await?;
    node.remove_pods(pods.into()).await
}
