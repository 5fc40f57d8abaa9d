//! Tests timestamps that Kubernetes accepts but Rust's types refuse.

use anyhow::{Context, Result, ensure};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, POOL_ANNOTATION};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::single_node::{NODE, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Resource;
use kube::api::GetParams;
use kube::core::Request;
use serde_json::json;

use super::super::direct_routing::routed;
use super::super::fixture::{Block, PoolFixture, answered, await_node_warning, delete_assignment, remove_other_node};
use super::super::{IMMEDIATE_TIMEOUT, scaled, with_flags};
use super::{LAST_SECOND, SCALE, add_not, create_orphaned_assignment, finds_none, last_but, patch};

/// A time with an offset that no time zone has.
const NO_TIME: &str = "2026-01-01T00:00:00.000000+99:99";

/// Puts a time that Rust's types refuse into the managed fields of an object.
async fn make_unreadable<K: Resource<DynamicType = ()>>(
    node: &SingleNode,
    namespace: Option<&str>,
    name: &str,
) -> Result<()> {
    // First set a label. The second patch gives this label a manager and a time, but does not change the label. So the
    // API server keeps that time instead of the current time.
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

/// Undoes [`make_unreadable`].
async fn make_readable<K: Resource<DynamicType = ()>>(
    node: &SingleNode,
    namespace: Option<&str>,
    name: &str,
) -> Result<()> {
    patch::<K>(node, namespace, name, json!({"metadata": {"managedFields": [{}]}})).await
}

/// The resources that the agent watches.
const WATCHED: [&str; 6] = ["nodes", "addressblocks", "addresspools", "ipassignments", "pods", "namespaces"];

/// Restarts the agent and waits until it has opened all its watches. Returns a position in the proxy's record, so that
/// a test can count later watches.
async fn watching(node: &mut SingleNode, flags: &[&str]) -> Result<usize> {
    let mark = node.api()?.mark();
    with_flags(node, flags).await?;
    wait_until("the agent has opened all its watches", WAIT_TIMEOUT, || async {
        let api = node.api()?;
        let missing: Vec<&str> = WATCHED
            .into_iter()
            .filter(|resource| api.observed(mark, &Selector::verbs(&["watch"]).of(resource)).is_empty())
            .collect();
        Ok(check(missing.is_empty(), || format!("the agent does not watch {missing:?} yet")))
    })
    .await?;
    Ok(node.api()?.mark())
}

/// Checks that no watch of the agent has ended since the mark: the agent has opened no new watch. The watches are
/// younger than a minute, so none of them ends because of its age.
fn no_watch_ended(node: &SingleNode, mark: usize) -> Result<()> {
    for resource in WATCHED {
        let opened = node.api()?.observed(mark, &Selector::verbs(&["watch"]).of(resource)).len();
        ensure!(
            opened == 0,
            "the agent opened its watch of {resource} again; the end of its log:\n{}",
            node.agent_log_tail()
        );
    }
    Ok(())
}

pub async fn objects(node: &mut SingleNode) -> Result<()> {
    let mark = watching(node, &[&scaled(SCALE)]).await?;
    let mut fixture = PoolFixture::create(node, "odd-times", 64, 30, 2, json!({})).await?;
    let first = fixture.add(node).await?;
    let (block, taken) = (fixture.block(node, first).await?, fixture.address(first)?);
    let stray = last_but(&block, taken)?;
    create_orphaned_assignment(node, &fixture, &block, stray, json!("eth0")).await?;
    block.patch(node, json!({"freeSince": NO_TIME})).await?;
    make_unreadable::<IPAssignment>(node, None, &stray.to_string()).await?;
    make_unreadable::<Node>(node, None, NODE).await?;
    make_unreadable::<AddressPool>(node, None, fixture.pool).await?;
    make_unreadable::<AddressBlock>(node, None, &block.name).await?;
    await_node_warning(node, &[&stray.to_string(), "assigns address"]).await?;
    add_not(node, &mut fixture, stray).await.context("an ADD failed while the agent was running")?;
    no_watch_ended(node, mark)?;

    node.kill_agent();
    node.start_agent().await?;
    add_not(node, &mut fixture, stray).await.context("after a restart")?;
    let refused = fixture.pod(node).await?;
    finds_none(node, &fixture, refused)?;
    node.del(&fixture.pods[first])?;
    wait_until("a new pod gets the address of the pod that ended", IMMEDIATE_TIMEOUT, || async {
        let answer = node.call(&fixture.pods[refused].call("ADD"))?;
        Ok(check(answered(&answer)? == Some(taken), || answer.stdout.clone()))
    })
    .await?;

    make_readable::<IPAssignment>(node, None, &stray.to_string()).await?;
    make_readable::<Node>(node, None, NODE).await?;
    make_readable::<AddressPool>(node, None, fixture.pool).await?;
    make_readable::<AddressBlock>(node, None, &block.name).await?;
    delete_assignment(node, stray).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

/// The pool in the namespaces' annotations, and the prefix of this pool's addresses.
const BY_NAMESPACE: (&str, &str) = ("odd-namespaces", "10.90.77.");
const BY_POD: (&str, &str) = ("odd-pods", "10.90.78.");

/// Creates a namespace and two pods in it. Each of the three objects has a time that only Kubernetes accepts. Then
/// annotates the namespace and one pod with the names of their pools.
async fn odd_pods(node: &SingleNode, namespace: &str) -> Result<[Sandbox; 2]> {
    let names = |pool: &str| json!({"metadata": {"annotations": {POOL_ANNOTATION: pool}}});
    node.make_namespace(namespace, None).await?;
    make_unreadable::<Namespace>(node, None, namespace).await?;
    patch::<Namespace>(node, None, namespace, names(BY_NAMESPACE.0)).await?;
    let pods = [node.kube_pod(namespace, "plain", None).await?, node.kube_pod(namespace, "annotated", None).await?];
    for name in ["plain", "annotated"] {
        make_unreadable::<Pod>(node, Some(namespace), name).await?;
    }
    patch::<Pod>(node, Some(namespace), "annotated", names(BY_POD.0)).await?;
    Ok(pods)
}

/// Waits until the agent's watch has shown an object that has both the odd time and the name of its pool.
async fn shown(node: &SingleNode, mark: usize, resource: &'static str, name: &str, pool: &str) -> Result<()> {
    let events = Selector::verbs(&["event"]).of(resource).named(name);
    wait_until(&format!("the watch of {resource} shows {name} with its pool"), WAIT_TIMEOUT, || async {
        let seen = node.api()?.observed(mark, &events);
        let odd = seen.iter().any(|event| event.body.contains(LAST_SECOND) && event.body.contains(pool));
        Ok(check(odd, || format!("{} events", seen.len())))
    })
    .await
}

/// Calls ADD for both pods. The first pod must get an address of the namespace's pool, and the second an address of the
/// pool that the pod selects. Then deletes the pods.
async fn get_addresses(node: &SingleNode, namespace: &str, pods: [Sandbox; 2]) -> Result<()> {
    for (pod, (pool, addresses)) in pods.iter().zip([BY_NAMESPACE, BY_POD]) {
        node.add(pod)?;
        let address = pod.addresses()?.first().context("no address")?.to_string();
        ensure!(address.starts_with(addresses), "the pod got {address}, which is no address of its pool {pool}");
        node.del(pod)?;
    }
    for name in ["plain", "annotated"] {
        make_readable::<Pod>(node, Some(namespace), name).await?;
        node.delete_kube_pod(namespace, name).await?;
    }
    make_readable::<Namespace>(node, None, namespace).await
}

pub async fn pod_and_namespace(node: &mut SingleNode) -> Result<()> {
    for (pool, addresses) in [BY_NAMESPACE, BY_POD] {
        let spec = json!({"subnets": [{"ipv4": format!("{addresses}0/28")}], "blockSizeBits": 2, "cooldownSeconds": 0});
        node.apply_pool(pool, spec).await?;
        node.await_free_blocks(pool).await?;
    }
    let mark = watching(node, &[]).await?;
    let pods = odd_pods(node, "odd-watched").await?;
    shown(node, mark, "namespaces", "odd-watched", BY_NAMESPACE.0).await?;
    shown(node, mark, "pods", "annotated", BY_POD.0).await?;
    get_addresses(node, "odd-watched", pods)
        .await
        .context("the pods got no correct addresses after the watches had shown them")?;
    no_watch_ended(node, mark)?;

    let mark = node.api()?.mark();
    let api = node.api()?;
    let deaf =
        ["pods", "namespaces"].map(|resource| api.inject(Selector::verbs(&["watch"]).of(resource), Fault::DropEvents));
    let pods = odd_pods(node, "odd-read").await?;
    get_addresses(node, "odd-read", pods)
        .await
        .context("the pods got no correct addresses while the watches were silent")?;
    drop(deaf);
    for (resource, name) in [("pods", "annotated"), ("namespaces", "odd-read")] {
        let reads = node.api()?.observed(mark, &Selector::verbs(&["get"]).of(resource).named(name)).len();
        ensure!(reads > 0, "the ADD did not read {name} of the {resource}");
    }
    // The proxy dropped the watch events of these objects, so restart the agent to let it read them.
    with_flags(node, &[]).await?;
    node.await_assignments(&[], WAIT_TIMEOUT).await
}

pub async fn direct(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &["--routing=direct"]).await?;
    let fixture = PoolFixture::create(node, "odd-direct", 67, 28, 2, json!({})).await?;
    let mut blocks = Vec::new();
    for address in ["10.90.67.0", "10.90.67.4", "10.90.67.8"] {
        blocks.push(Block::with(node, address.parse()?).await?);
    }
    blocks[0].give_to_other_node(node).await?;
    routed(node, &blocks[0], Some("10.100.0.77")).await?;
    make_unreadable::<AddressBlock>(node, None, &blocks[0].name).await?;
    blocks[1].give_to_other_node(node).await?;
    routed(node, &blocks[1], Some("10.100.0.77")).await.context("the route is missing while the agent is running")?;
    node.kill_agent();
    node.namespace.ip(&format!("route del {}", blocks[1].range))?;
    node.start_agent().await?;
    routed(node, &blocks[1], Some("10.100.0.77")).await.context("after a restart")?;
    blocks[2].give_to_other_node(node).await?;
    routed(node, &blocks[2], Some("10.100.0.77")).await.context("after a restart")?;
    make_readable::<AddressBlock>(node, None, &blocks[0].name).await?;
    remove_other_node(node).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
