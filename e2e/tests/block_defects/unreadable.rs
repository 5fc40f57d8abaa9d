//! Values that Kubernetes accepts and Rust refuses, and objects that can't be read: the agent goes on, and what can't be read is in use.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, POOL_ANNOTATION};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::lone_node::{LoneNode, NODE, PATIENCE, Pod as Sandbox};
use bobbin_e2e::until::{Look, so, until};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Resource};
use serde_json::{Value, json};

use super::direct::routed;
use super::scene::{Block, Scene, answered, delete_record, forget_other, node_is_warned, node_warnings, records};
use super::{AT_ONCE, scaled, with_flags};

/// Resyncs are frequent in these tests.
const SCALE: f64 = 0.01;
/// A time with an offset that no time zone has.
const NO_TIME: &str = "2026-01-01T00:00:00.000000+99:99";
/// A time that is too late for Rust's types.
const LAST_SECOND: &str = "9999-12-31T23:59:59Z";
/// The boot that the node's boot ID says.
const BOOT: &str = "11111111-1111-1111-1111-111111111111";

async fn often(node: &mut LoneNode) -> Result<()> {
    with_flags(node, &[&scaled(SCALE)]).await
}

/// Patches an object and does not read the answer, which this program's types may refuse.
async fn patch<K: Resource<DynamicType = ()>>(
    node: &LoneNode,
    namespace: Option<&str>,
    name: &str,
    patch: Value,
) -> Result<()> {
    let request =
        Request::new(K::url_path(&(), namespace)).patch(name, &PatchParams::default(), &Patch::Merge(patch))?;
    node.client.request_text(request).await.map(drop).with_context(|| format!("{} {name}", K::kind(&())))
}

/// Gives an object a time among its managed fields that Rust's types refuse.
async fn spoil<K: Resource<DynamicType = ()>>(node: &LoneNode, namespace: Option<&str>, name: &str) -> Result<()> {
    // Fields that the second patch does not change itself stay those of the manager it names.
    patch::<K>(node, namespace, name, json!({"metadata": {"labels": {"e2e": "odd"}}})).await?;
    let managed = json!({"metadata": {"managedFields": [{
        "manager": "kubectl", "operation": "Update", "apiVersion": K::api_version(&()), "time": LAST_SECOND,
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:e2e": {}}}},
    }]}});
    patch::<K>(node, namespace, name, managed).await?;
    let request = Request::new(K::url_path(&(), namespace)).get(name, &GetParams::default())?;
    let text = node.client.request_text(request).await?;
    ensure!(text.contains(LAST_SECOND), "the API server did not keep the time: {text}");
    Ok(())
}

/// Makes an object readable again that was spoilt.
async fn mend<K: Resource<DynamicType = ()>>(node: &LoneNode, namespace: Option<&str>, name: &str) -> Result<()> {
    patch::<K>(node, namespace, name, json!({"metadata": {"managedFields": [{}]}})).await
}

/// Records an address for this node that no attachment has, by this interface.
async fn record_stray(node: &LoneNode, scene: &Scene, block: &Block, address: IpAddr, interface: Value) -> Result<()> {
    let object = json!({
        "apiVersion": IPAssignment::api_version(&()), "kind": "IPAssignment", "metadata": {"name": address.to_string()},
        "spec": {
            "poolName": scene.pool, "blockName": block.name, "nodeName": NODE, "ipv4": address.to_string(),
            "containerID": "stray", "ifName": interface, "createdAt": LAST_SECOND, "bootID": BOOT,
        },
    });
    let records = Request::new(IPAssignment::url_path(&(), None));
    let request = records.create(&PostParams::default(), serde_json::to_vec(&object)?)?;
    node.client.request_text(request).await?;
    Ok(())
}

/// The address of a block of four that comes last and is not this one.
fn last_but(block: &Block, taken: IpAddr) -> Result<IpAddr> {
    let IpAddr::V4(first) = block.range.addr() else { anyhow::bail!("{} is no IPv4", block.range) };
    let last = (0..4).rev().map(|offset| IpAddr::from((u32::from(first) + offset).to_be_bytes()));
    last.into_iter().find(|address| *address != taken).context("a block of four has another address")
}

/// An ADD of a new pod that must get an address other than this one. Makes no list, which the test's own types might refuse.
async fn add_not(node: &LoneNode, scene: &mut Scene, recorded: IpAddr) -> Result<()> {
    let number = scene.pod(node).await?;
    node.add(&scene.pods[number])?;
    ensure!(scene.address(number)? != recorded, "{recorded} was given out, which has a record");
    Ok(())
}

/// An ADD of a pod that must find no free address.
fn finds_none(node: &LoneNode, scene: &Scene, number: usize) -> Result<()> {
    let answer = node.call(&scene.pods[number].call("ADD"))?;
    ensure!(answered(&answer)?.is_none(), "the last address was given out, which has a record: {}", answer.stdout);
    let error = answer.error()?;
    ensure!(error.code == 11, "{error:?}");
    node.del(&scene.pods[number])
}

/// What the agent watches.
const WATCHED: [&str; 6] = ["nodes", "addressblocks", "addresspools", "ipassignments", "pods", "namespaces"];

/// Starts the agent anew, and waits until it watches all; a place to count watches from.
async fn watching(node: &mut LoneNode, flags: &[&str]) -> Result<usize> {
    let mark = node.api()?.mark();
    with_flags(node, flags).await?;
    until("the agent watches all that it should", PATIENCE, || async {
        let api = node.api()?;
        let missing: Vec<&str> = WATCHED
            .into_iter()
            .filter(|resource| api.seen(mark, &Selector::verbs(&["watch"]).of(resource)).is_empty())
            .collect();
        Ok(so(missing.is_empty(), || format!("not yet {missing:?}")))
    })
    .await?;
    Ok(node.api()?.mark())
}

/// Fails if a watch was opened since. By itself none ends in its first minute.
fn no_watch_ended(node: &LoneNode, mark: usize) -> Result<()> {
    for resource in WATCHED {
        let opened = node.api()?.seen(mark, &Selector::verbs(&["watch"]).of(resource)).len();
        ensure!(opened == 0, "the watch of {resource} began anew; the agent's log:\n{}", node.agent_log_tail());
    }
    Ok(())
}

pub async fn times(node: &mut LoneNode) -> Result<()> {
    let mark = watching(node, &[&scaled(SCALE)]).await?;
    let mut scene = Scene::begin(node, "odd-times", 64, 30, 2, json!({})).await?;
    let first = scene.add(node).await?;
    let (block, taken) = (scene.block(node, first).await?, scene.address(first)?);
    let stray = last_but(&block, taken)?;
    record_stray(node, &scene, &block, stray, json!("eth0")).await?;
    block.patch(node, json!({"freeSince": NO_TIME})).await?;
    spoil::<IPAssignment>(node, None, &stray.to_string()).await?;
    spoil::<Node>(node, None, NODE).await?;
    spoil::<AddressPool>(node, None, scene.pool).await?;
    spoil::<AddressBlock>(node, None, &block.name).await?;
    node_is_warned(node, &[&stray.to_string(), "gives address"]).await?;
    add_not(node, &mut scene, stray).await.context("while the agent runs")?;
    no_watch_ended(node, mark)?;

    node.kill_agent();
    node.start_agent().await?;
    add_not(node, &mut scene, stray).await.context("after a restart")?;
    let refused = scene.pod(node).await?;
    finds_none(node, &scene, refused)?;
    node.del(&scene.pods[first])?;
    until("a pod gets the address of the one that ended", AT_ONCE, || async {
        let answer = node.call(&scene.pods[refused].call("ADD"))?;
        Ok(so(answered(&answer)? == Some(taken), || answer.stdout.clone()))
    })
    .await?;

    mend::<IPAssignment>(node, None, &stray.to_string()).await?;
    mend::<Node>(node, None, NODE).await?;
    mend::<AddressPool>(node, None, scene.pool).await?;
    mend::<AddressBlock>(node, None, &block.name).await?;
    delete_record(node, stray).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

/// The pool that the namespaces name, and how its addresses begin; the same for the pods.
const BY_NAMESPACE: (&str, &str) = ("odd-namespaces", "10.90.77.");
const BY_POD: (&str, &str) = ("odd-pods", "10.90.78.");

/// Makes a namespace with two pods, all with a time that only Kubernetes accepts. Namespace and one pod name their pools after that.
async fn odd_pods(node: &LoneNode, namespace: &str) -> Result<[Sandbox; 2]> {
    let names = |pool: &str| json!({"metadata": {"annotations": {POOL_ANNOTATION: pool}}});
    node.make_namespace(namespace, None).await?;
    spoil::<Namespace>(node, None, namespace).await?;
    patch::<Namespace>(node, None, namespace, names(BY_NAMESPACE.0)).await?;
    let pods = [node.kube_pod(namespace, "plain", None).await?, node.kube_pod(namespace, "annotated", None).await?];
    for name in ["plain", "annotated"] {
        spoil::<Pod>(node, Some(namespace), name).await?;
    }
    patch::<Pod>(node, Some(namespace), "annotated", names(BY_POD.0)).await?;
    Ok(pods)
}

/// Waits until the agent's watch was shown an object with the odd time and with the name of its pool.
async fn shown(node: &LoneNode, mark: usize, resource: &'static str, name: &str, pool: &str) -> Result<()> {
    let events = Selector::verbs(&["event"]).of(resource).named(name);
    until(&format!("the watch of {resource} shows {name} with its pool"), PATIENCE, || async {
        let seen = node.api()?.seen(mark, &events);
        let odd = seen.iter().any(|event| event.body.contains(LAST_SECOND) && event.body.contains(pool));
        Ok(so(odd, || format!("{} events", seen.len())))
    })
    .await
}

/// The pods get addresses of the pools that namespace and pod name. Then all that is ended.
async fn get_addresses(node: &LoneNode, namespace: &str, pods: [Sandbox; 2]) -> Result<()> {
    for (pod, (pool, addresses)) in pods.iter().zip([BY_NAMESPACE, BY_POD]) {
        node.add(pod)?;
        let address = pod.addresses()?.first().context("no address")?.to_string();
        ensure!(address.starts_with(addresses), "the pod got {address}, which is not of its pool {pool}");
        node.del(pod)?;
    }
    for name in ["plain", "annotated"] {
        mend::<Pod>(node, Some(namespace), name).await?;
        node.delete_kube_pod(namespace, name).await?;
    }
    mend::<Namespace>(node, None, namespace).await
}

pub async fn pod_and_namespace(node: &mut LoneNode) -> Result<()> {
    for (pool, addresses) in [BY_NAMESPACE, BY_POD] {
        let spec = json!({"subnets": [{"ipv4": format!("{addresses}0/28")}], "blockSizeBits": 2, "cooldownSeconds": 0});
        node.apply_pool(pool, spec).await?;
        node.await_free_blocks(pool).await?;
    }
    let mark = watching(node, &[]).await?;
    let pods = odd_pods(node, "odd-watched").await?;
    shown(node, mark, "namespaces", "odd-watched", BY_NAMESPACE.0).await?;
    shown(node, mark, "pods", "annotated", BY_POD.0).await?;
    get_addresses(node, "odd-watched", pods).await.context("as the watches show them")?;
    no_watch_ended(node, mark)?;

    let mark = node.api()?.mark();
    let api = node.api()?;
    let deaf =
        ["pods", "namespaces"].map(|resource| api.inject(Selector::verbs(&["watch"]).of(resource), Fault::DropEvents));
    let pods = odd_pods(node, "odd-read").await?;
    get_addresses(node, "odd-read", pods).await.context("as a read shows them")?;
    drop(deaf);
    for (resource, name) in [("pods", "annotated"), ("namespaces", "odd-read")] {
        let reads = node.api()?.seen(mark, &Selector::verbs(&["get"]).of(resource).named(name)).len();
        ensure!(reads > 0, "the ADD did not read {name} of the {resource}");
    }
    // The agent reads anew what it was not told.
    with_flags(node, &[]).await?;
    node.await_records(&[], PATIENCE).await
}

/// A kind whose schema lets fields have any type, as if a later version of the kind had changed one.
struct Loosened {
    plural: &'static str,
    schema: Value,
}

impl Loosened {
    async fn begin(node: &LoneNode, plural: &'static str) -> Result<Self> {
        let kinds: Api<CustomResourceDefinition> = Api::all(node.client.clone());
        let definition = kinds.get(&format!("{plural}.bobbin.dev")).await?;
        let version = definition.spec.versions.first().context("a kind without a version")?;
        let this = Self { plural, schema: serde_json::to_value(&version.schema)? };
        let text = json!({"type": "string"});
        let any = |fields: Value| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": fields});
        let selectable = json!({"nodeName": text, "poolName": text, "blockName": text, "podNamespace": text});
        let loose = json!({"type": "object", "properties": {"spec": any(selectable), "status": any(json!({}))}});
        this.replace(node, json!({"openAPIV3Schema": loose})).await?;
        Ok(this)
    }

    /// The kind has its own schema again. Objects that can't be read are to be mended before.
    async fn end(self, node: &LoneNode) -> Result<()> {
        self.replace(node, self.schema.clone()).await
    }

    /// The API server ends all watches of a kind whose schema changes.
    async fn replace(&self, node: &LoneNode, schema: Value) -> Result<()> {
        let kinds: Api<CustomResourceDefinition> = Api::all(node.client.clone());
        let operations = json!([{"op": "replace", "path": "/spec/versions/0/schema", "value": schema}]);
        let operations: Patch<()> = Patch::Json(serde_json::from_value(operations)?);
        let mark = node.api()?.mark();
        kinds.patch(&format!("{}.bobbin.dev", self.plural), &PatchParams::default(), &operations).await?;
        until(&format!("the agent watches {} anew", self.plural), PATIENCE, || async {
            let watches = node.api()?.seen(mark, &Selector::verbs(&["watch"]).of(self.plural));
            Ok(so(!watches.is_empty(), || "no new watch".to_owned()))
        })
        .await
    }
}

/// Patches an object until the API server has taken in the schema that allows it.
async fn patch_soon<K: Resource<DynamicType = ()>>(node: &LoneNode, name: &str, change: Value) -> Result<()> {
    until(&format!("{} {name} is of another type", K::kind(&())), PATIENCE, || async {
        patch::<K>(node, None, name, change.clone()).await?;
        Ok(Look::Yes(()))
    })
    .await
}

/// Waits until the agent's log has this sentence after so many bytes.
async fn is_logged(node: &LoneNode, after: usize, sentence: &str) -> Result<()> {
    until(&format!("the log says: {sentence}"), PATIENCE, || async {
        let said = node.agent_log().get(after..).is_some_and(|log| log.contains(sentence));
        Ok(so(said, || node.agent_log_tail()))
    })
    .await
}

pub async fn pool(node: &mut LoneNode) -> Result<()> {
    often(node).await?;
    let mut scene = Scene::begin(node, "odd-pool", 65, 28, 2, json!({})).await?;
    scene.add(node).await?;
    let kind = Loosened::begin(node, "addresspools").await?;
    let log = node.agent_log().len();
    patch_soon::<AddressPool>(node, "odd-pool", json!({"spec": {"draining": "no"}})).await?;
    is_logged(node, log, "AddressPool odd-pool can't be read and counts as in use").await?;
    let next = scene.add(node).await.context("while the agent runs")?;
    node.del(&scene.pods[next])?;
    let other = node.pod()?;
    node.add(&other).context("from the pool default")?;

    node.kill_agent();
    let log = node.agent_log().len();
    node.start_agent().await?;
    is_logged(node, log, "AddressPool odd-pool can't be read and counts as in use").await?;
    scene.add(node).await.context("after a restart")?;
    node.del(&other).context("of the pool default")?;
    patch::<AddressPool>(node, None, "odd-pool", json!({"spec": {"draining": false}})).await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

/// Waits until the agent has listed its records once more, and has acted on it.
async fn resynced(node: &LoneNode) -> Result<()> {
    let (mark, lists) = (node.api()?.mark(), Selector::verbs(&["list"]).of("ipassignments"));
    until("the agent has compared its records twice", PATIENCE, || async {
        let seen = node.api()?.seen(mark, &lists).len();
        Ok(so(seen > 1, || format!("{seen} lists")))
    })
    .await
}

pub async fn own_record(node: &mut LoneNode) -> Result<()> {
    often(node).await?;
    let mut scene = Scene::begin(node, "odd-own", 66, 30, 2, json!({})).await?;
    let first = scene.add(node).await?;
    let held = scene.address(first)?;
    let kind = Loosened::begin(node, "ipassignments").await?;
    patch_soon::<IPAssignment>(node, &held.to_string(), json!({"spec": {"ifName": 7}})).await?;
    resynced(node).await?;
    for what in ["while the agent runs", "after a restart"] {
        add_not(node, &mut scene, held).await.context(what)?;
        ensure!(scene.address(first)? == held, "{what}, the pod has lost {held}");
        node.kill_agent();
        node.start_agent().await?;
    }
    node.del(&scene.pods[first])?;
    until("the record of the pod that ended is gone", PATIENCE, || async {
        let left = records(node).get_metadata_opt(&held.to_string()).await?;
        Ok(so(left.is_none(), || node.agent_log_tail()))
    })
    .await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

pub async fn named_record(node: &mut LoneNode) -> Result<()> {
    often(node).await?;
    let mut scene = Scene::begin(node, "odd-named", 69, 30, 2, json!({})).await?;
    let first = scene.add(node).await?;
    let held = scene.address(first)?.to_string();
    let kind = Loosened::begin(node, "ipassignments").await?;
    let log = node.agent_log().len();
    patch_soon::<IPAssignment>(node, &held, json!({"spec": {"ifName": 7}})).await?;
    resynced(node).await?;
    let warnings = node_warnings(node).await?;
    ensure!(
        !warnings.iter().any(|note| note.contains(&held)),
        "the one record of {held} is no duplicate: {warnings:?}"
    );
    is_logged(node, log, &format!("IPAssignment {held} can't be read and counts as in use")).await?;
    patch::<IPAssignment>(node, None, &held, json!({"spec": {"ifName": "eth0"}})).await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

pub async fn stray_record(node: &mut LoneNode) -> Result<()> {
    often(node).await?;
    let mut scene = Scene::begin(node, "odd-record", 68, 30, 2, json!({})).await?;
    let first = scene.add(node).await?;
    let (block, taken) = (scene.block(node, first).await?, scene.address(first)?);
    let stray = last_but(&block, taken)?;
    let kind = Loosened::begin(node, "ipassignments").await?;
    let log = node.agent_log().len();
    until("the API server takes a record of another type", PATIENCE, || async {
        record_stray(node, &scene, &block, stray, json!(7)).await?;
        Ok(Look::Yes(()))
    })
    .await?;
    resynced(node).await?;
    add_not(node, &mut scene, stray).await.context("while the agent runs")?;
    node.kill_agent();
    node.start_agent().await?;
    add_not(node, &mut scene, stray).await.context("after a restart")?;
    let refused = scene.pod(node).await?;
    finds_none(node, &scene, refused)?;
    is_logged(node, log, &format!("IPAssignment {stray} can't be read and counts as in use")).await?;
    let request = Request::new(IPAssignment::url_path(&(), None));
    node.client.request_text(request.delete(&stray.to_string(), &DeleteParams::default())?).await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

pub async fn direct(node: &mut LoneNode) -> Result<()> {
    with_flags(node, &["--routing=direct"]).await?;
    let scene = Scene::begin(node, "odd-direct", 67, 28, 2, json!({})).await?;
    let mut blocks = Vec::new();
    for address in ["10.90.67.0", "10.90.67.4", "10.90.67.8"] {
        blocks.push(Block::with(node, address.parse()?).await?);
    }
    blocks[0].hand_over(node).await?;
    routed(node, &blocks[0], Some("10.100.0.77")).await?;
    spoil::<AddressBlock>(node, None, &blocks[0].name).await?;
    blocks[1].hand_over(node).await?;
    routed(node, &blocks[1], Some("10.100.0.77")).await.context("while the agent runs")?;
    node.kill_agent();
    node.namespace.ip(&format!("route del {}", blocks[1].range))?;
    node.start_agent().await?;
    routed(node, &blocks[1], Some("10.100.0.77")).await.context("after a restart")?;
    blocks[2].hand_over(node).await?;
    routed(node, &blocks[2], Some("10.100.0.77")).await.context("after a restart")?;
    mend::<AddressBlock>(node, None, &blocks[0].name).await?;
    forget_other(node).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}
