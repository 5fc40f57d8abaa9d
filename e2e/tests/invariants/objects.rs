//! Plants faults in the API objects.

use anyhow::{Context, Result};
use bobbin_crds::{AddressBlock, AddressPool, FINALIZER, IPAssignment};
use bobbin_e2e::invariants::Kind;
use bobbin_e2e::single_node::{NODE, SingleNode};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::stage::Stage;

pub async fn assignments(node: &mut SingleNode) -> Result<()> {
    let stage = Stage::set(node).await?;
    let (ada, bob) = (stage.assignment(&stage.ada).await?, stage.assignment(&stage.bob).await?);
    let address = ada.spec.ipv4.clone().context("the pod ada has no IPv4 address")?;

    // Plant a second assignment with the same IPv6 address and another name.
    let twin = create(&stage, &bob, |spec| {
        spec["ipv4"] = json!("10.64.200.1");
        spec["ipv6"] = json!(ada.spec.ipv6);
    })
    .await?;
    let ipv6 = ada.spec.ipv6.clone().unwrap_or_default();
    stage.sees(Kind::DuplicateAddress, &["pod default/ada", "pod default/bob", &ipv6]).await?;
    stage.delete_assignment(&twin).await?;

    // Plant the address of one pod in the status of the other pod.
    let pods: Api<Pod> = Api::namespaced(stage.node.client.clone(), "default");
    let status = |ips: Value| json!({"status": {"podIPs": ips, "podIP": ips[0]["ip"]}});
    let merge = PatchParams::default();
    pods.patch_status("bob", &merge, &Patch::Merge(status(json!([{"ip": address}])))).await?;
    stage.sees(Kind::ConflictingHolders, &["pod default/ada", "pod default/bob", &address]).await?;
    stage.sees(Kind::MissingAssignment, &["default/bob", &address, "status"]).await?;
    pods.patch_status("bob", &merge, &Patch::Merge(json!({"status": {"podIPs": null, "podIP": null}}))).await?;

    stage.is_clean().await?;

    // Plant an assignment whose pod does not exist. Then plant an assignment whose container does not exist.
    let leak = create(&stage, &ada, |spec| {
        spec["ipv4"] = json!("10.64.200.2");
        spec["ipv6"] = Value::Null;
        spec["podUID"] = json!("11111111-2222-4333-8444-555555555555");
        spec["containerID"] = json!("gone");
    })
    .await?;
    stage.sees(Kind::LeakedAssignment, &["10.64.200.2", "does not exist"]).await?;
    stage.sees(Kind::VoidAssignment, &["10.64.200.2", "are in block"]).await?;
    stage.delete_assignment(&leak).await?;
    let leak = create(&stage, &ada, |spec| {
        spec["ipv4"] = json!("10.64.200.3");
        spec["ipv6"] = Value::Null;
        spec["containerID"] = json!("gone");
    })
    .await?;
    stage.sees(Kind::LeakedAssignment, &["10.64.200.3", "no such attachment"]).await?;
    stage.delete_assignment(&leak).await?;
    stage.is_clean().await?;

    // Delete the assignment of an address in use. At the end of the test, the agent creates the assignment again.
    stage.delete_assignment(&address).await?;
    stage.sees(Kind::MissingAssignment, &["default/ada", &address, "namespace"]).await?;
    stage.sees(Kind::MissingAssignment, &["default/ada", &address, "checkpoint of n1"]).await?;
    stage.strike().await
}

/// Copies an assignment, changes the copy's spec, and creates the copy in the API. Returns the name of the copy, which
/// is its address.
async fn create(stage: &Stage<'_>, like: &IPAssignment, change: impl FnOnce(&mut Value)) -> Result<String> {
    let mut spec = serde_json::to_value(&like.spec)?;
    change(&mut spec);
    let name = spec["ipv4"].as_str().context("the spec has no IPv4 address")?.to_owned();
    let object =
        json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "IPAssignment", "metadata": {"name": name}, "spec": spec});
    stage.assignments().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(name)
}

pub async fn blocks(node: &mut SingleNode) -> Result<()> {
    let stage = Stage::set(node).await?;
    let blocks: Api<AddressBlock> = Api::all(stage.node.client.clone());
    let own = stage.node.own_blocks("default").await?.pop().context("the node has no block")?;
    let name = own.metadata.name.clone().context("the block has no name")?;
    let free = stage.node.blocks().await?.into_iter().find(|block| block.spec.node_name.is_none());
    let free = free.and_then(|block| block.metadata.name).context("no block is free")?;
    let owned = |node: &str, uid: &str| json!({"nodeName": node, "nodeUID": uid});
    let unowned = json!({"nodeName": null, "nodeUID": null, "nodeIPv4": null, "nodeIPv6": null});
    let patch = async |block: &str, spec: Value| -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        blocks.patch(block, &PatchParams::default(), &patch).await.map(drop).context(block.to_owned())
    };

    // Let a free block name a Node that does not exist. Then let it name the UID of an earlier Node.
    patch(&free, owned("n9", "no-uid")).await?;
    stage.sees(Kind::BlockOfMissingNode, &[&free, "n9", "does not exist"]).await?;
    patch(&free, unowned.clone()).await?;
    patch(&free, owned(NODE, "earlier")).await?;
    stage.sees(Kind::BlockOfMissingNode, &[&free, "earlier Node n1"]).await?;
    stage.sees(Kind::SavedBlocksDiffer, &[&free, "checkpoint lacks"]).await?;
    stage.sees(Kind::NotExported, &["n1", &free, "does not export"]).await?;
    patch(&free, unowned.clone()).await?;
    stage.is_clean().await?;

    // Remove the owner from the block of both pods. Then let another node own the block.
    patch(&name, unowned.clone()).await?;
    stage.sees(Kind::AddressInUseFreed, &["default/ada", &name, "is free"]).await?;
    stage.sees(Kind::ForeignExport, &["n1", &name, "is free"]).await?;
    stage.sees(Kind::SavedBlocksDiffer, &["n1", &name, "has not claimed"]).await?;
    patch(&name, owned("n9", "no-uid")).await?;
    stage.sees(Kind::AddressInUseFreed, &["default/ada", &name, "belongs to node n9"]).await?;
    stage.sees(Kind::VoidAssignment, &[&name, "belongs to node n9"]).await?;
    stage.sees(Kind::ForeignBlockUsed, &["n1", &name, "belongs to node n9"]).await?;
    patch(&name, unowned).await?;
    patch(&name, serde_json::to_value(&own.spec)?).await?;
    stage.is_clean().await?;

    // Plant a block that lies within another block and outside of every accepted subnet.
    let (ipv4, _) =
        own.spec.ipv4.as_deref().and_then(|range| range.split_once('/')).context("the block has no IPv4 CIDR")?;
    let within = json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressBlock", "metadata": {"name": "none-0"},
        "spec": {"poolName": "none", "index": 0, "ipv4": format!("{ipv4}/30")},
    });
    blocks.create(&PostParams::default(), &serde_json::from_value(within)?).await?;
    stage.sees(Kind::OverlappingBlocks, &["none-0", &name, "overlap"]).await?;
    stage.sees(Kind::BlockOutsidePool, &["none-0", "no accepted subnet"]).await?;
    blocks.delete("none-0", &DeleteParams::default()).await?;

    // Delete the block that both pods use.
    let mut again = own.clone();
    blocks.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await?;
    blocks.delete(&name, &DeleteParams::default()).await?;
    stage.sees(Kind::AddressInUseFreed, &["default/ada", "no block contains the address"]).await?;
    stage.sees(Kind::VoidAssignment, &[&name, "does not exist"]).await?;
    stage.sees(Kind::ForeignExport, &["n1", "no block"]).await?;
    again.metadata = kube::api::ObjectMeta {
        name: own.metadata.name,
        finalizers: Some(vec![FINALIZER.to_owned()]),
        ..kube::api::ObjectMeta::default()
    };
    blocks.create(&PostParams::default(), &again).await?;
    stage.is_clean().await?;
    stage.strike().await
}

pub async fn pools(node: &mut SingleNode) -> Result<()> {
    let stage = Stage::set(node).await?;
    let pools: Api<AddressPool> = Api::all(stage.node.client.clone());
    let status = pools.get("default").await?.status.context("the pool has no status")?;
    let write = async |pool: &str, status: Value| -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        pools.patch_status(pool, &PatchParams::default(), &patch).await.map(drop).context(pool.to_owned())
    };
    let counts = status.addresses.ipv4.context("the status has no IPv4 counts")?;
    let planted = [
        (json!({"used": status.used + 1}), "used addresses"),
        (json!({"blocks": {"claimed": status.blocks.claimed + 1}}), "claimed blocks"),
        (json!({"addresses": {"ipv4": {"cooling": counts.cooling + 1}}}), "does not add up for IPv4"),
        (json!({"addresses": {"ipv4": {"free": counts.free - 1}}}), "its fields `used` and `free` say"),
        (json!({"addresses": {"ipv4": {"total": counts.total - 1}}}), "its accepted subnets have"),
    ];
    for (wrong, words) in planted {
        write("default", wrong).await?;
        stage.sees(Kind::WrongPoolCounts, &["pool default", words]).await?;
        write("default", serde_json::to_value(&status)?).await?;
        stage.is_clean().await?;
    }

    // Plant a pool whose subnet overlaps another pool. The operator is stopped, so it does not refuse the pool.
    stage.node.apply_pool_only("twin", json!({"subnets": [{"ipv4": "10.64.128.0/24"}]})).await?;
    let accepted = json!({"ipv4": "10.64.128.0/24", "state": "Accepted", "since": "2026-01-01T00:00:00.000000Z"});
    write("twin", json!({"acceptedSubnets": [accepted]})).await?;
    stage.sees(Kind::OverlappingSubnets, &["10.64.0.0/16", "pool default", "10.64.128.0/24", "pool twin"]).await?;
    pools.delete("twin", &DeleteParams::default()).await?;
    stage.is_clean().await?;
    stage.strike().await
}
