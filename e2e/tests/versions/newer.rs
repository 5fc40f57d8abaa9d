//! A newer version has added a field to every part of every object. The writes of agent and operator must keep this
//! field.

use anyhow::{Context, Result, ensure};
use bobbin_crds::{AddressBlock, AddressPool};
use bobbin_e2e::single_node::{NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

/// The name of the field that the newer version added.
const FIELD: &str = "addedLater";
const VALUE: &str = "kept";
const POOL: &str = "newer";
/// The parts of a pool's status to which the newer version added the field.
const STATUS: [&str; 4] = ["/status", "/status/blocks", "/status/addresses/ipv4", "/status/acceptedSubnets/0"];

/// An API that returns objects with all their fields, including fields that the Rust types lack.
fn whole<K>(node: &SingleNode) -> Api<DynamicObject>
where
    K: kube::Resource<DynamicType = ()>,
{
    Api::all_with(node.client.clone(), &ApiResource::erase::<K>(&()))
}

pub async fn fields(node: &mut SingleNode) -> Result<()> {
    extend_definitions(node).await?;
    let pools = whole::<AddressPool>(node);
    let blocks = whole::<AddressBlock>(node);
    node.apply_pool(POOL, json!({"subnets": [{"ipv4": "10.91.0.0/30"}], "blockSizeBits": 1, "cooldownSeconds": 0}))
        .await?;
    node.await_free_blocks(POOL).await?;
    set(&pools, POOL, "/spec").await?;
    for part in STATUS {
        set_status(&pools, part).await?;
    }
    for index in 0..2 {
        set(&blocks, &format!("{POOL}-{index}"), "/spec").await?;
    }

    // Let the agent claim two blocks in different ways. It claims the first block without reading it. Before the second
    // claim, it lists the pool's blocks.
    let first = node.kube_pod("default", "newer-0", Some(POOL)).await?;
    node.add(&first)?;
    let mut pods = vec![first];
    for number in 1..4 {
        let pod = node.kube_pod("default", &format!("newer-{number}"), Some(POOL)).await?;
        node.add(&pod)?;
        pods.push(pod);
    }
    owned(node, &blocks, 2).await?;
    // Delete and create the Node, so that the agent writes the new UID into the blocks.
    let nodes: Api<Node> = Api::all(node.client.clone());
    nodes.delete(NODE, &DeleteParams::default()).await?;
    node.make_node().await?;
    let uid = nodes.get(NODE).await?.metadata.uid.context("the Node has no UID")?;
    wait_until("both blocks name the Node's new UID", WAIT_TIMEOUT, || async {
        let own = node.own_blocks(POOL).await?;
        let new = own.iter().filter(|block| block.spec.node_uid.as_ref() == Some(&uid)).count();
        Ok(check(new == 2, || format!("{new} blocks")))
    })
    .await?;
    // Append a second subnet, so that the operator writes counts, conditions and the list of accepted subnets.
    let subnet = json!([{"op": "add", "path": "/spec/subnets/-", "value": {"ipv4": "10.91.0.8/30"}}]);
    patch(&pools, POOL, subnet, false).await?;
    wait_until("the operator has accepted both subnets", WAIT_TIMEOUT, || async {
        let status = pools.get(POOL).await?.data["status"].clone();
        let accepted = status["acceptedSubnets"].as_array().cloned().unwrap_or_default();
        let count = accepted.iter().filter(|entry| entry["state"] == "Accepted").count();
        Ok(check(count == 2, || status.to_string()))
    })
    .await?;
    // Delete the pods and drain the pool. The agent then releases the blocks, and the operator removes the finalizers.
    for (number, pod) in pods.iter().enumerate() {
        node.del(pod)?;
        node.delete_kube_pod("default", &format!("newer-{number}")).await?;
    }
    let drain = json!([{"op": "add", "path": "/spec/draining", "value": true}]);
    patch(&pools, POOL, drain, false).await?;
    wait_until("the blocks are free", WAIT_TIMEOUT, || async {
        for index in 0..2 {
            let block = blocks.get(&format!("{POOL}-{index}")).await?;
            if block.data["spec"].get("nodeName").is_some() || block.metadata.finalizers.is_some() {
                return Ok(Poll::Pending(block.data.to_string()));
            }
        }
        Ok(Poll::Ready(()))
    })
    .await?;
    for index in 0..2 {
        has(&blocks, &format!("{POOL}-{index}"), "/spec").await?;
    }
    for part in ["/spec"].iter().chain(&STATUS) {
        has(&pools, POOL, part).await?;
    }
    no_full_update(node)
}

/// Adds the field to the schemas of pools, blocks and assignments, as a newer version does.
async fn extend_definitions(node: &SingleNode) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(node.client.clone());
    let status = "/properties/status/properties";
    let parts: [(&str, Vec<String>); 3] = [
        (
            "addresspools.bobbin.dev",
            vec![
                "/properties/spec".to_owned(),
                "/properties/status".to_owned(),
                format!("{status}/blocks"),
                format!("{status}/addresses/properties/ipv4"),
                format!("{status}/acceptedSubnets/items"),
            ],
        ),
        ("addressblocks.bobbin.dev", vec!["/properties/spec".to_owned()]),
        ("ipassignments.bobbin.dev", vec!["/properties/spec".to_owned()]),
    ];
    for (name, parts) in parts {
        let operations: Value = parts
            .iter()
            .map(|part| {
                let path = format!("/spec/versions/0/schema/openAPIV3Schema{part}/properties/{FIELD}");
                json!({"op": "add", "path": path, "value": {"type": "string", "maxLength": 20}})
            })
            .collect();
        let patch: Patch<()> = Patch::Json(serde_json::from_value(operations)?);
        definitions.patch(name, &PatchParams::default(), &patch).await.with_context(|| format!("definition {name}"))?;
    }
    // Wait until the API server serves the new schema. Before that, it removes unknown fields.
    let pools = whole::<AddressPool>(node);
    let probe = json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "probe"},
        "spec": {"subnets": [{"ipv4": "10.92.0.0/24"}], FIELD: VALUE}});
    wait_until("the API server keeps the new field", WAIT_TIMEOUT, || async {
        let params = PatchParams::apply("probe").force();
        let answer = pools.patch("probe", &params, &Patch::Apply(&probe)).await?;
        Ok(check(answer.data["spec"][FIELD] == VALUE, || answer.data.to_string()))
    })
    .await
}

async fn patch(api: &Api<DynamicObject>, name: &str, operations: Value, status: bool) -> Result<()> {
    let patch: Patch<()> = Patch::Json(serde_json::from_value(operations)?);
    let params = PatchParams::default();
    let answer =
        if status { api.patch_status(name, &params, &patch).await } else { api.patch(name, &params, &patch).await };
    answer.map(drop).with_context(|| name.to_owned())
}

/// Sets the new field in one part of an object.
async fn set(api: &Api<DynamicObject>, name: &str, part: &str) -> Result<()> {
    let operation = json!([{"op": "add", "path": format!("{part}/{FIELD}"), "value": VALUE}]);
    patch(api, name, operation, false).await?;
    has(api, name, part).await
}

async fn set_status(api: &Api<DynamicObject>, part: &str) -> Result<()> {
    let operation = json!([{"op": "add", "path": format!("{part}/{FIELD}"), "value": VALUE}]);
    patch(api, POOL, operation, true).await?;
    has(api, POOL, part).await
}

/// Checks that this part of an object has the new field.
async fn has(api: &Api<DynamicObject>, name: &str, part: &str) -> Result<()> {
    let object = api.get(name).await?.data;
    let found = object.pointer(&format!("{part}/{FIELD}"));
    ensure!(found == Some(&json!(VALUE)), "{name} has lost the field {part}/{FIELD}: {object}");
    Ok(())
}

/// Waits until the node owns `count` blocks of the pool. Checks that these blocks have the new field.
async fn owned(node: &SingleNode, blocks: &Api<DynamicObject>, count: usize) -> Result<()> {
    wait_until(&format!("the node owns {count} blocks"), WAIT_TIMEOUT, || async {
        let own = node.own_blocks(POOL).await?.len();
        Ok(check(own == count, || format!("{own} blocks")))
    })
    .await?;
    for index in 0..count {
        has(blocks, &format!("{POOL}-{index}"), "/spec").await?;
    }
    Ok(())
}

/// Fails if agent or operator has replaced a whole object. Such a write removes each field that the writer does not
/// know.
fn no_full_update(node: &SingleNode) -> Result<()> {
    let entries = node.control_plane.audit().entries()?;
    let of_bobbin: Vec<_> = entries.iter().filter(|entry| entry.user_agent.starts_with("bobbin-")).collect();
    ensure!(of_bobbin.iter().any(|entry| entry.verb == "patch"), "the audit log has no patch by Bobbin");
    let updates: Vec<_> = of_bobbin.iter().filter(|entry| entry.verb == "update").collect();
    ensure!(updates.is_empty(), "agent or operator replaced whole objects: {updates:?}");
    Ok(())
}
