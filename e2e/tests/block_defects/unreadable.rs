//! Tests objects that the agent can't decode, and values that Kubernetes accepts but Rust's types refuse. The agent
//! keeps serving, and treats the addresses of an unreadable object as in use.

#[path = "unreadable/timestamps.rs"]
pub mod timestamps;

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use bobbin_crds::{AddressPool, IPAssignment};
use bobbin_e2e::api_proxy::Selector;
use bobbin_e2e::single_node::{NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Resource};
use serde_json::{Value, json};

use super::fixture::{Block, PoolFixture, answered, assignments, node_warnings};
use super::{scaled, with_flags};

/// The time scale of the tests with unreadable objects. It makes resyncs frequent.
const SCALE: f64 = 0.01;
/// A time that is later than Rust's time types can hold.
const LAST_SECOND: &str = "9999-12-31T23:59:59Z";
/// The boot ID of the test's node.
const BOOT: &str = "11111111-1111-1111-1111-111111111111";

async fn often(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &[&scaled(SCALE)]).await
}

/// Patches an object. Does not decode the answer, because the test's own types may refuse the object.
async fn patch<K: Resource<DynamicType = ()>>(
    node: &SingleNode,
    namespace: Option<&str>,
    name: &str,
    patch: Value,
) -> Result<()> {
    let request =
        Request::new(K::url_path(&(), namespace)).patch(name, &PatchParams::default(), &Patch::Merge(patch))?;
    node.client.request_text(request).await.map(drop).with_context(|| format!("{} {name}", K::kind(&())))
}

/// Creates an assignment of this node that belongs to no attachment. The assignment has this interface name.
async fn create_orphaned_assignment(
    node: &SingleNode,
    fixture: &PoolFixture,
    block: &Block,
    address: IpAddr,
    interface: Value,
) -> Result<()> {
    let object = json!({
        "apiVersion": IPAssignment::api_version(&()), "kind": "IPAssignment", "metadata": {"name": address.to_string()},
        "spec": {
            "poolName": fixture.pool, "blockName": block.name, "nodeName": NODE, "ipv4": address.to_string(),
            "containerID": "stray", "ifName": interface, "createdAt": LAST_SECOND, "bootID": BOOT,
        },
    });
    let collection = Request::new(IPAssignment::url_path(&(), None));
    let request = collection.create(&PostParams::default(), serde_json::to_vec(&object)?)?;
    node.client.request_text(request).await?;
    Ok(())
}

/// The last address in a block of four addresses, or the one before if the last is `taken`.
fn last_but(block: &Block, taken: IpAddr) -> Result<IpAddr> {
    let IpAddr::V4(first) = block.range.addr() else { anyhow::bail!("{} is no IPv4 range", block.range) };
    let last = (0..4).rev().map(|offset| IpAddr::from((u32::from(first) + offset).to_be_bytes()));
    last.into_iter().find(|address| *address != taken).context("the block has no other address")
}

/// Calls ADD for a new pod. Fails if the pod gets this address. Lists no objects, because the test's own types might
/// refuse them.
async fn add_not(node: &SingleNode, fixture: &mut PoolFixture, assigned: IpAddr) -> Result<()> {
    let number = fixture.pod(node).await?;
    node.add(&fixture.pods[number])?;
    ensure!(fixture.address(number)? != assigned, "a new pod got {assigned}, although this address has an assignment");
    Ok(())
}

/// Calls ADD for a pod. The ADD must fail, because no address is free.
fn finds_none(node: &SingleNode, fixture: &PoolFixture, number: usize) -> Result<()> {
    let answer = node.call(&fixture.pods[number].call("ADD"))?;
    ensure!(
        answered(&answer)?.is_none(),
        "a new pod got the last address, although this address has an assignment: {}",
        answer.stdout
    );
    let error = answer.error()?;
    ensure!(error.code == 11, "{error:?}");
    node.del(&fixture.pods[number])
}

/// A resource whose schema temporarily allows a field to have any type. So an object can look as if a later version of
/// Bobbin had changed a field's type.
struct LoosenedSchema {
    plural: &'static str,
    schema: Value,
}

impl LoosenedSchema {
    async fn begin(node: &SingleNode, plural: &'static str) -> Result<Self> {
        let kinds: Api<CustomResourceDefinition> = Api::all(node.client.clone());
        let definition = kinds.get(&format!("{plural}.bobbin.dev")).await?;
        let version = definition.spec.versions.first().context("the custom resource has no version")?;
        let this = Self { plural, schema: serde_json::to_value(&version.schema)? };
        let text = json!({"type": "string"});
        let any = |fields: Value| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": fields});
        let selectable = json!({
            "nodeName": text, "poolName": text, "blockName": text,
            "podNamespace": text, "podName": text, "podUID": text, "ipv6": text,
        });
        let loose = json!({"type": "object", "properties": {"spec": any(selectable), "status": any(json!({}))}});
        this.replace(node, json!({"openAPIV3Schema": loose})).await?;
        Ok(this)
    }

    /// Restores the schema. Before this call, the test must make all objects readable.
    async fn end(self, node: &SingleNode) -> Result<()> {
        self.replace(node, self.schema.clone()).await
    }

    /// Replaces the schema. The API server then ends all watches of the resource, so this function waits until the
    /// agent has opened a new watch.
    async fn replace(&self, node: &SingleNode, schema: Value) -> Result<()> {
        let kinds: Api<CustomResourceDefinition> = Api::all(node.client.clone());
        let operations = json!([{"op": "replace", "path": "/spec/versions/0/schema", "value": schema}]);
        let operations: Patch<()> = Patch::Json(serde_json::from_value(operations)?);
        let mark = node.api()?.mark();
        kinds.patch(&format!("{}.bobbin.dev", self.plural), &PatchParams::default(), &operations).await?;
        wait_until(&format!("the agent watches {} again", self.plural), WAIT_TIMEOUT, || async {
            let watches = node.api()?.observed(mark, &Selector::verbs(&["watch"]).of(self.plural));
            Ok(check(!watches.is_empty(), || "no new watch".to_owned()))
        })
        .await
    }
}

/// Repeats a patch of an object until the API server accepts it. The API server needs a moment to apply a new schema.
async fn patch_soon<K: Resource<DynamicType = ()>>(node: &SingleNode, name: &str, change: Value) -> Result<()> {
    wait_until(&format!("{} {name} has a field of another type", K::kind(&())), WAIT_TIMEOUT, || async {
        patch::<K>(node, None, name, change.clone()).await?;
        Ok(Poll::Ready(()))
    })
    .await
}

/// Waits until the agent has logged this sentence. Ignores the first `after` bytes of the log.
async fn is_logged(node: &SingleNode, after: usize, sentence: &str) -> Result<()> {
    wait_until(&format!("the agent has logged: {sentence}"), WAIT_TIMEOUT, || async {
        let said = node.agent_log().get(after..).is_some_and(|log| log.contains(sentence));
        Ok(check(said, || node.agent_log_tail()))
    })
    .await
}

pub async fn pool(node: &mut SingleNode) -> Result<()> {
    often(node).await?;
    let mut fixture = PoolFixture::create(node, "odd-pool", 65, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let kind = LoosenedSchema::begin(node, "addresspools").await?;
    let log = node.agent_log().len();
    patch_soon::<AddressPool>(node, "odd-pool", json!({"spec": {"draining": "no"}})).await?;
    is_logged(node, log, "AddressPool odd-pool can't be read: ").await?;
    let next = fixture.add(node).await.context("an ADD failed while the agent was running")?;
    node.del(&fixture.pods[next])?;
    let other = node.sandbox()?;
    node.add(&other).context("an ADD from the pool default failed")?;

    node.kill_agent();
    let log = node.agent_log().len();
    node.start_agent().await?;
    is_logged(node, log, "AddressPool odd-pool can't be read: ").await?;
    fixture.add(node).await.context("after a restart")?;
    node.del(&other).context("a DEL of a pod of the pool default failed")?;
    patch::<AddressPool>(node, None, "odd-pool", json!({"spec": {"draining": false}})).await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

/// Waits until the agent has listed its assignments two more times. At the second list, it has acted on the result of
/// the first.
async fn resynced(node: &SingleNode) -> Result<()> {
    let (mark, lists) = (node.api()?.mark(), Selector::verbs(&["list"]).of("ipassignments"));
    wait_until("the agent has listed its assignments twice", WAIT_TIMEOUT, || async {
        let seen = node.api()?.observed(mark, &lists).len();
        Ok(check(seen > 1, || format!("{seen} lists")))
    })
    .await
}

pub async fn own_assignment(node: &mut SingleNode) -> Result<()> {
    often(node).await?;
    let mut fixture = PoolFixture::create(node, "odd-own", 66, 30, 2, json!({})).await?;
    let first = fixture.add(node).await?;
    let held = fixture.address(first)?;
    let kind = LoosenedSchema::begin(node, "ipassignments").await?;
    patch_soon::<IPAssignment>(node, &held.to_string(), json!({"spec": {"ifName": 7}})).await?;
    resynced(node).await?;
    for what in ["while the agent was running", "after a restart"] {
        add_not(node, &mut fixture, held).await.context(what)?;
        ensure!(fixture.address(first)? == held, "{what}, the pod has lost {held}");
        node.kill_agent();
        node.start_agent().await?;
    }
    node.del(&fixture.pods[first])?;
    wait_until("the agent has deleted the assignment of the pod that ended", WAIT_TIMEOUT, || async {
        let left = assignments(node).get_metadata_opt(&held.to_string()).await?;
        Ok(check(left.is_none(), || node.agent_log_tail()))
    })
    .await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn named_assignment(node: &mut SingleNode) -> Result<()> {
    often(node).await?;
    let mut fixture = PoolFixture::create(node, "odd-named", 69, 30, 2, json!({})).await?;
    let first = fixture.add(node).await?;
    let held = fixture.address(first)?.to_string();
    let kind = LoosenedSchema::begin(node, "ipassignments").await?;
    let log = node.agent_log().len();
    patch_soon::<IPAssignment>(node, &held, json!({"spec": {"ifName": 7}})).await?;
    resynced(node).await?;
    let warnings = node_warnings(node).await?;
    ensure!(
        !warnings.iter().any(|note| note.contains(&held)),
        "the agent reports the only assignment of {held} as a duplicate: {warnings:?}"
    );
    is_logged(node, log, &format!("IPAssignment {held} can't be read: ")).await?;
    patch::<IPAssignment>(node, None, &held, json!({"spec": {"ifName": "eth0"}})).await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn orphaned_assignment(node: &mut SingleNode) -> Result<()> {
    often(node).await?;
    let mut fixture = PoolFixture::create(node, "odd-assignment", 68, 30, 2, json!({})).await?;
    let first = fixture.add(node).await?;
    let (block, taken) = (fixture.block(node, first).await?, fixture.address(first)?);
    let stray = last_but(&block, taken)?;
    let kind = LoosenedSchema::begin(node, "ipassignments").await?;
    let log = node.agent_log().len();
    wait_until("the API server accepts an assignment with a field of another type", WAIT_TIMEOUT, || async {
        create_orphaned_assignment(node, &fixture, &block, stray, json!(7)).await?;
        Ok(Poll::Ready(()))
    })
    .await?;
    resynced(node).await?;
    add_not(node, &mut fixture, stray).await.context("an ADD failed while the agent was running")?;
    node.kill_agent();
    node.start_agent().await?;
    add_not(node, &mut fixture, stray).await.context("after a restart")?;
    let refused = fixture.pod(node).await?;
    finds_none(node, &fixture, refused)?;
    is_logged(node, log, &format!("IPAssignment {stray} can't be read: ")).await?;
    let request = Request::new(IPAssignment::url_path(&(), None));
    node.client.request_text(request.delete(&stray.to_string(), &DeleteParams::default())?).await?;
    kind.end(node).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
