//! Values that Kubernetes accepts and Rust refuses, and objects that can't be read: neither stops the operator, and what can't be
//! read counts as in use.

use anyhow::{Context, Result, ensure};
use bobbin_crds::AddressBlock;
use bobbin_e2e::until::{Look, so, until};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::{PartialObjectMeta, Request};
use kube::{Api, Resource};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{SOON, World};

pub fn tests(world: &World) -> Vec<Trial> {
    vec![
        world.test("times_that_only_kubernetes_accepts_stop_no_operator_while_it_watches_lists_or_starts", times),
        world.test("a_block_that_can_not_be_read_keeps_its_place_and_its_pool_and_an_event_tells_it", unreadable_block),
    ]
}

/// Patches an object and does not read the answer, which this program's types refuse.
async fn patch<K: Resource<DynamicType = ()>>(world: &World, name: &str, patch: &Value) -> Result<()> {
    let request = Request::new(K::url_path(&(), None));
    let request = request.patch(name, &PatchParams::default(), &Patch::Merge(patch))?;
    world.client()?.request_text(request).await.map(drop).with_context(|| format!("{} {name}", K::kind(&())))
}

async fn times(_: World) -> Result<()> {
    let (mut control_plane, world) = World::without_operators().await?;
    let stop = CancellationToken::new();
    world.operator("watches", &["--no-leader-election"], stop.clone())?;
    let uid = world.node("odd-node").await?;
    world.pool("watched", json!({"subnets": [{"ipv4": "10.100.0.0/24"}]})).await?;
    world.until_ready("watched").await?;
    world.claim("watched-1", "odd-node", &uid).await?;

    for (block, time) in
        [("watched-0", "2026-01-01T00:00:00.000000+99:99"), ("watched-1", "9999-12-31T23:59:59.000000Z")]
    {
        patch::<AddressBlock>(&world, block, &json!({"spec": {"freeSince": time}})).await?;
    }
    // Fields that this patch does not change itself stay those of the manager it names.
    patch::<Node>(&world, "odd-node", &json!({"metadata": {"labels": {"a": "b"}}})).await?;
    let managed = json!({"metadata": {"managedFields": [{
        "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": "9999-12-31T23:59:59Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}},
    }]}});
    patch::<Node>(&world, "odd-node", &managed).await?;
    let request = Request::new(Node::url_path(&(), None)).get("odd-node", &kube::api::GetParams::default())?;
    let node = world.client()?.request_text(request).await?;
    ensure!(node.contains("9999-12-31T23:59:59Z"), "the API server did not keep the time: {node}");

    // The same operator, whose watches have shown the times.
    world.pool("while-watching", json!({"subnets": [{"ipv4": "10.101.0.0/24"}]})).await?;
    world.until_ready("while-watching").await?;
    // The same, after its watches broke.
    control_plane.stop_apiserver();
    control_plane.start_apiserver().await?;
    world.pool("after-a-break", json!({"subnets": [{"ipv4": "10.102.0.0/24"}]})).await?;
    world.until_ready("after-a-break").await?;
    // Another, whose first lists have them.
    stop.cancel();
    let stop = CancellationToken::new();
    world.operator("starts", &["--no-leader-election"], stop.clone())?;
    world.pool("at-the-start", json!({"subnets": [{"ipv4": "10.103.0.0/24"}]})).await?;
    world.until_ready("at-the-start").await?;

    // Blocks of such a time are written like any other: given back, reclaimed.
    patch::<AddressBlock>(&world, "watched-1", &json!({"spec": {"nodeName": null, "nodeUID": null}})).await?;
    world.until_free("watched-1", SOON).await?;
    world.claim("watched-2", "odd-node", &uid).await?;
    patch::<AddressBlock>(&world, "watched-2", &json!({"spec": {"freeSince": "9999-12-31T23:59:59.000000Z"}})).await?;
    let request = Request::new(Node::url_path(&(), None)).delete("odd-node", &DeleteParams::default())?;
    world.client()?.request_text(request).await?;
    let block = world.until_free("watched-2", SOON * 2).await?;
    ensure!(
        block.spec.free_since.as_ref().is_some_and(|time| time.0.strftime("%Y").to_string() != "9999"),
        "{:?}",
        block.spec
    );
    stop.cancel();
    Ok(())
}

async fn unreadable_block(_: World) -> Result<()> {
    let (_control_plane, world) = World::without_operators().await?;
    let stop = CancellationToken::new();
    world.operator("reads", &["--no-leader-election"], stop.clone())?;
    world.pool("odd", json!({"subnets": [{"ipv4": "10.110.0.0/24"}]})).await?;
    world.until_ready("odd").await?;
    // As if a later version of the kind had a field of another type.
    let kinds: Api<CustomResourceDefinition> = Api::all(world.client()?);
    let text = json!({"type": "string"});
    let spec = json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"nodeName": text, "poolName": text},
    });
    let anything = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let operations = json!([{"op": "replace", "path": "/spec/versions/0/schema", "value": anything}]);
    let operations: Patch<()> = Patch::Json(serde_json::from_value(operations)?);
    kinds.patch("addressblocks.bobbin.dev", &PatchParams::default(), &operations).await?;
    until("the block is of another type", SOON, || async {
        patch::<AddressBlock>(&world, "odd-3", &json!({"spec": {"index": "three"}})).await?;
        Ok(Look::Yes(()))
    })
    .await?;
    until("an event on the block says so", SOON, || async {
        let events: Api<Event> = Api::namespaced(world.client()?, "default");
        let events = events.list(&ListParams::default()).await?.items;
        let notes: Vec<String> = events
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("Unreadable"))
            .filter(|event| event.regarding.as_ref().is_some_and(|block| block.name.as_deref() == Some("odd-3")))
            .filter_map(|event| event.note)
            .collect();
        let told = notes.iter().any(|note| note.contains("kubectl edit addressblocks.bobbin.dev odd-3"));
        Ok(so(told, || format!("{notes:?}")))
    })
    .await?;
    // Another pool is carved all the same; this one can go only when the block can be read.
    world.pool("another", json!({"subnets": [{"ipv4": "10.111.0.0/24"}]})).await?;
    world.until_ready("another").await?;
    world.pools()?.delete("odd", &DeleteParams::default()).await?;
    let blocks: Api<PartialObjectMeta<AddressBlock>> = Api::all(world.client()?);
    until("only the unreadable block of the pool is left", SOON, || async {
        let all = blocks.list(&ListParams::default()).await?.items;
        let names: Vec<String> = all.into_iter().filter_map(|block| block.metadata.name).collect();
        let left: Vec<&String> = names.iter().filter(|name| name.starts_with("odd-")).collect();
        Ok(so(left == ["odd-3"], || format!("{left:?}")))
    })
    .await?;
    let block = blocks.get("odd-3").await?;
    ensure!(block.metadata.deletion_timestamp.is_none(), "an unreadable block was deleted");
    ensure!(world.pools()?.get_opt("odd").await?.is_some(), "the pool of an unreadable block went");
    patch::<AddressBlock>(&world, "odd-3", &json!({"spec": {"index": 3}})).await?;
    world.until_gone("odd").await?;
    stop.cancel();
    Ok(())
}
