//! Tests objects that the operator can't decode, and values that Kubernetes accepts but Rust's types refuse. The
//! operator keeps working, and treats the addresses of an unreadable object as in use.

use anyhow::{Context, Result, ensure};
use bobbin_crds::AddressBlock;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::{PartialObjectMeta, Request};
use kube::{Api, Resource};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("timestamps that only Kubernetes accepts stop no operator that watches, lists or starts", times),
        suite.test("an unreadable block keeps its range and its pool, and an event reports it", unreadable_block),
    ]
}

/// Patches an object. Does not decode the answer, because the test's own types refuse the object.
async fn patch<K: Resource<DynamicType = ()>>(fixture: &OperatorFixture, name: &str, patch: &Value) -> Result<()> {
    let request = Request::new(K::url_path(&(), None));
    let request = request.patch(name, &PatchParams::default(), &Patch::Merge(patch))?;
    fixture.client().request_text(request).await.map(drop).with_context(|| format!("{} {name}", K::kind(&())))
}

async fn times(_: &mut OperatorFixture) -> Result<()> {
    let mut fixture = OperatorFixture::without_operators().await?;
    let stop = CancellationToken::new();
    fixture.operator("watches", &["--no-leader-election"], stop.clone())?;
    let uid = fixture.node("odd-node").await?;
    fixture.pool("watched", json!({"subnets": [{"ipv4": "10.100.0.0/24"}]})).await?;
    fixture.until_ready("watched").await?;
    fixture.claim("watched-1", "odd-node", &uid).await?;

    for (block, time) in
        [("watched-0", "2026-01-01T00:00:00.000000+99:99"), ("watched-1", "9999-12-31T23:59:59.000000Z")]
    {
        patch::<AddressBlock>(&fixture, block, &json!({"spec": {"freeSince": time}})).await?;
    }
    // First set a label. The second patch gives this label a manager and a time, but does not change the label. So the
    // API server keeps that time instead of the current time.
    patch::<Node>(&fixture, "odd-node", &json!({"metadata": {"labels": {"a": "b"}}})).await?;
    let managed = json!({"metadata": {"managedFields": [{
        "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": "9999-12-31T23:59:59Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}},
    }]}});
    patch::<Node>(&fixture, "odd-node", &managed).await?;
    let request = Request::new(Node::url_path(&(), None)).get("odd-node", &kube::api::GetParams::default())?;
    let node = fixture.client().request_text(request).await?;
    ensure!(node.contains("9999-12-31T23:59:59Z"), "the API server did not keep the time: {node}");

    // The operator, whose watches have shown these times, must still work.
    fixture.pool("while-watching", json!({"subnets": [{"ipv4": "10.101.0.0/24"}]})).await?;
    fixture.until_ready("while-watching").await?;
    // The operator must also work after its watches have broken.
    fixture.control_plane.stop_apiserver();
    fixture.control_plane.start_apiserver().await?;
    fixture.pool("after-a-break", json!({"subnets": [{"ipv4": "10.102.0.0/24"}]})).await?;
    fixture.until_ready("after-a-break").await?;
    // A new operator must work too, although its first LIST responses contain these times.
    stop.cancel();
    let stop = CancellationToken::new();
    fixture.operator("starts", &["--no-leader-election"], stop.clone())?;
    fixture.pool("at-the-start", json!({"subnets": [{"ipv4": "10.103.0.0/24"}]})).await?;
    fixture.until_ready("at-the-start").await?;

    // Nodes and the operator must be able to release blocks with such a time.
    patch::<AddressBlock>(&fixture, "watched-1", &json!({"spec": {"nodeName": null, "nodeUID": null}})).await?;
    fixture.until_free("watched-1", RECONCILE_TIMEOUT).await?;
    fixture.claim("watched-2", "odd-node", &uid).await?;
    patch::<AddressBlock>(&fixture, "watched-2", &json!({"spec": {"freeSince": "9999-12-31T23:59:59.000000Z"}}))
        .await?;
    let request = Request::new(Node::url_path(&(), None)).delete("odd-node", &DeleteParams::default())?;
    fixture.client().request_text(request).await?;
    let block = fixture.until_free("watched-2", RECONCILE_TIMEOUT * 2).await?;
    ensure!(
        block.spec.free_since.as_ref().is_some_and(|time| time.0.strftime("%Y").to_string() != "9999"),
        "{:?}",
        block.spec
    );
    stop.cancel();
    Ok(())
}

async fn unreadable_block(_: &mut OperatorFixture) -> Result<()> {
    let fixture = OperatorFixture::without_operators().await?;
    let stop = CancellationToken::new();
    fixture.operator("reads", &["--no-leader-election"], stop.clone())?;
    fixture.pool("odd", json!({"subnets": [{"ipv4": "10.110.0.0/24"}]})).await?;
    fixture.until_ready("odd").await?;
    // Simulate a later version of Bobbin, in which a field of the resource has another type.
    let kinds: Api<CustomResourceDefinition> = Api::all(fixture.client());
    let text = json!({"type": "string"});
    let spec = json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"nodeName": text, "poolName": text},
    });
    let anything = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let operations = json!([{"op": "replace", "path": "/spec/versions/0/schema", "value": anything}]);
    let operations: Patch<()> = Patch::Json(serde_json::from_value(operations)?);
    kinds.patch("addressblocks.bobbin.dev", &PatchParams::default(), &operations).await?;
    wait_until("the block has a field of another type", RECONCILE_TIMEOUT, || async {
        patch::<AddressBlock>(&fixture, "odd-3", &json!({"spec": {"index": "three"}})).await?;
        Ok(Poll::Ready(()))
    })
    .await?;
    wait_until("an event reports that the operator can't read the block", RECONCILE_TIMEOUT, || async {
        let events: Api<Event> = Api::namespaced(fixture.client(), "default");
        let events = events.list(&ListParams::default()).await?.items;
        let notes: Vec<String> = events
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("Unreadable"))
            .filter(|event| event.regarding.as_ref().is_some_and(|block| block.name.as_deref() == Some("odd-3")))
            .filter_map(|event| event.note)
            .collect();
        let told = notes.iter().any(|note| note.contains("kubectl edit addressblocks.bobbin.dev odd-3"));
        Ok(check(told, || format!("{notes:?}")))
    })
    .await?;
    // The operator must still create blocks for another pool. It must keep the unreadable block and its pool until it
    // can read the block again.
    fixture.pool("another", json!({"subnets": [{"ipv4": "10.111.0.0/24"}]})).await?;
    fixture.until_ready("another").await?;
    fixture.pools().delete("odd", &DeleteParams::default()).await?;
    let blocks: Api<PartialObjectMeta<AddressBlock>> = Api::all(fixture.client());
    wait_until("only the unreadable block of the pool is left", RECONCILE_TIMEOUT, || async {
        let all = blocks.list(&ListParams::default()).await?.items;
        let names: Vec<String> = all.into_iter().filter_map(|block| block.metadata.name).collect();
        let left: Vec<&String> = names.iter().filter(|name| name.starts_with("odd-")).collect();
        Ok(check(left == ["odd-3"], || format!("{left:?}")))
    })
    .await?;
    let block = blocks.get("odd-3").await?;
    ensure!(block.metadata.deletion_timestamp.is_none(), "the operator deleted an unreadable block");
    ensure!(fixture.pools().get_opt("odd").await?.is_some(), "the operator deleted the pool of an unreadable block");
    patch::<AddressBlock>(&fixture, "odd-3", &json!({"spec": {"index": 3}})).await?;
    fixture.until_gone("odd").await?;
    stop.cancel();
    Ok(())
}
