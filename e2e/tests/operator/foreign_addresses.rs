//! Tests addresses of Nodes and Services. The operator refuses a pool that contains such an address. If a Node later
//! joins inside a pool, the operator reserves the Node's address.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bobbin_crds::AddressPoolStatus;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use bobbin_messages::condition;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{NODE_GRACE_PERIOD, OperatorFixture, RECONCILE_TIMEOUT, accepted, says, why};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("a pool over the Service range is refused, also over a range that is added", over_services),
        suite.test("the address of a Node that joins inside a pool is reserved until the Node has been gone for the grace period", node_joins),
        suite.test("an operator that starts keeps the reserved addresses of a deleted Node for the grace period", restart),
        suite.test("pools reserve at most eight addresses of a Node", at_most_eight),
        suite.test("a Service range that is added over an accepted pool is reported", services_later),
    ]
}

/// Waits until an event about a pool has this reason and these words.
pub async fn await_event(fixture: &OperatorFixture, pool: &str, reason: &str, words: &str) -> Result<()> {
    wait_until(&format!("pool {pool} has an event with the reason {reason}"), RECONCILE_TIMEOUT, || async {
        let events: Api<Event> = Api::namespaced(fixture.client(), "default");
        let events = events.list(&ListParams::default()).await?.items.into_iter();
        let about =
            events.filter(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(pool)));
        let notes: Vec<(String, String)> =
            about.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect();
        let said = notes.iter().any(|(seen, note)| seen == reason && note.contains(words));
        Ok(check(said, || format!("{notes:?}")))
    })
    .await
}

async fn set_addresses(fixture: &OperatorFixture, node: &str, addresses: &[(&str, &str)]) -> Result<()> {
    let addresses: Vec<Value> =
        addresses.iter().map(|(type_, address)| json!({"type": type_, "address": address})).collect();
    let nodes: Api<Node> = Api::all(fixture.client());
    let status = Patch::Merge(json!({"status": {"addresses": addresses}}));
    nodes.patch_status(node, &PatchParams::default(), &status).await?;
    Ok(())
}

async fn add_service_range(fixture: &OperatorFixture, name: &str, cidr: &str) -> Result<()> {
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
    let ranges: Api<ServiceCIDR> = Api::all(fixture.client());
    ranges.create(&PostParams::default(), &serde_json::from_value(range)?).await?;
    Ok(())
}

async fn remove_service_range(fixture: &OperatorFixture, name: &str) -> Result<()> {
    // Remove the finalizer of the range here, because no controller manager is running.
    let ranges: Api<ServiceCIDR> = Api::all(fixture.client());
    ranges.delete(name, &DeleteParams::default()).await?;
    let unfinalized = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    // Ignore errors, because a range without a finalizer is already gone.
    let _ = ranges.patch(name, &PatchParams::default(), &unfinalized).await;
    Ok(())
}

fn is_refused(status: &AddressPoolStatus) -> bool {
    says(status, condition::ACCEPTED) == "False"
}

async fn over_services(fixture: &mut OperatorFixture) -> Result<()> {
    for (pool, subnet) in
        [("on-services", json!({"ipv4": "10.96.0.0/12"})), ("on-services-6", json!({"ipv6": "fd00:96::/120"}))]
    {
        fixture.pool(pool, json!({"subnets": [subnet]})).await?;
        let status = fixture.until_status(pool, "is refused", RECONCILE_TIMEOUT, is_refused).await?;
        ensure!(accepted(&status) == 0 && status.refused_subnets[0].reason == "ServiceRange", "{status:?}");
        ensure!(why(&status, condition::ACCEPTED).contains("ServiceCIDR kubernetes"), "{status:?}");
        ensure!(fixture.blocks_of(pool).await?.is_empty(), "the operator created blocks for the refused pool");
        await_event(fixture, pool, "ServiceRange", "ServiceCIDR kubernetes").await?;
    }
    add_service_range(fixture, "more-services", "10.161.0.0/24").await?;
    fixture.pool("on-more", json!({"subnets": [{"ipv4": "10.161.0.0/16"}]})).await?;
    let status = fixture.until_status("on-more", "is refused", RECONCILE_TIMEOUT, is_refused).await?;
    ensure!(why(&status, condition::ACCEPTED).contains("ServiceCIDR more-services"), "{status:?}");
    remove_service_range(fixture, "more-services").await?;
    fixture.until_ready("on-more").await.map(drop)
}

async fn node_joins(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("resident").await?;
    fixture.pool("joined", json!({"subnets": [{"ipv4": "10.62.0.0/27", "ipv6": "fd62::/123"}]})).await?;
    fixture.until_ready("joined").await?;
    fixture.claim("joined-0", "resident", &uid).await?;
    fixture.create_assignment("10.62.0.9", "joined-0", "resident").await?;
    fixture.node("newcomer").await?;
    set_addresses(
        fixture,
        "newcomer",
        &[("InternalIP", "10.62.0.7"), ("ExternalIP", "fd62::8"), ("InternalIP", "10.62.0.9")],
    )
    .await?;
    let status = fixture
        .until_status("joined", "reserves the addresses", RECONCILE_TIMEOUT, |status| {
            says(status, condition::ADDRESS_CONFLICT) == "True" && status.node_addresses.len() == 3
        })
        .await?;
    ensure!(status.node_addresses == ["10.62.0.7", "10.62.0.9", "fd62::8"], "{status:?}");
    let message = why(&status, condition::ADDRESS_CONFLICT);
    ensure!(
        message.contains("10.62.0.9 of Node newcomer") && message.contains("delete the pod that uses it"),
        "{message}"
    );
    // The address 10.62.0.9 is both reserved and assigned, but the status must count it once.
    let counts = status.addresses.ipv4.context("the status has no IPv4 counts")?;
    ensure!((counts.total, counts.reserved, counts.assigned, counts.free) == (32, 2, 1, 29), "{counts:?}");
    ensure!(says(&status, condition::READY) == "True" && fixture.owner("joined-0").await? == "resident", "{status:?}");
    await_event(fixture, "joined", "NodeAddress", "10.62.0.7 of Node newcomer").await?;
    // Remove the Node's addresses: a kubelet that registers again may report none for a while. The operator must keep
    // the addresses reserved.
    set_addresses(fixture, "newcomer", &[]).await?;
    let status = until_conflict(fixture, "joined", "Node newcomer no longer reports its address 10.62.0.7").await?;
    ensure!(status.node_addresses.len() == 3, "{status:?}");
    set_addresses(fixture, "newcomer", &[("InternalIP", "10.62.0.7")]).await?;
    fixture
        .until_status("joined", "reserves one address", RECONCILE_TIMEOUT, |status| status.node_addresses.len() == 1)
        .await?;
    let deleted = Instant::now();
    fixture.delete_node("newcomer").await?;
    let status = until_conflict(fixture, "joined", "Node newcomer no longer reports its address 10.62.0.7").await?;
    ensure!(status.node_addresses == ["10.62.0.7"], "{status:?}");
    let status = fixture
        .until_status("joined", "has no conflict", RECONCILE_TIMEOUT, |status| {
            says(status, condition::ADDRESS_CONFLICT) == "False" && status.node_addresses.is_empty()
        })
        .await?;
    let waited = deleted.elapsed();
    ensure!(waited >= NODE_GRACE_PERIOD, "the address was reserved for only {waited:?} after the Node's deletion");
    let counts = status.addresses.ipv4.context("the status has no IPv4 counts")?;
    ensure!((counts.reserved, counts.assigned, counts.free) == (0, 1, 31), "{counts:?}");
    Ok(())
}

/// Waits until the condition `AddressConflict` of a pool is true and its message contains these words.
async fn until_conflict(fixture: &OperatorFixture, pool: &str, words: &str) -> Result<AddressPoolStatus> {
    fixture
        .until_status(pool, &format!("says {words:?}"), RECONCILE_TIMEOUT, |status| {
            says(status, condition::ADDRESS_CONFLICT) == "True"
                && why(status, condition::ADDRESS_CONFLICT).contains(words)
        })
        .await
}

async fn restart(_: &mut OperatorFixture) -> Result<()> {
    let fixture = OperatorFixture::without_operators().await?;
    let stop = CancellationToken::new();
    fixture.operator("first", &["--no-leader-election"], stop.clone())?;
    fixture.pool("left", json!({"subnets": [{"ipv4": "10.64.0.0/27"}]})).await?;
    fixture.until_ready("left").await?;
    fixture.node("leaver").await?;
    set_addresses(&fixture, "leaver", &[("InternalIP", "10.64.0.7")]).await?;
    until_conflict(&fixture, "left", "10.64.0.7 of Node leaver").await?;
    stop.cancel();
    fixture.delete_node("leaver").await?;
    let (stop, started) = (CancellationToken::new(), Instant::now());
    fixture.operator("second", &["--no-leader-election"], stop.clone())?;
    let status =
        until_conflict(&fixture, "left", "a Node had the address 10.64.0.7 before this operator became the leader")
            .await?;
    ensure!(status.node_addresses == ["10.64.0.7"], "{status:?}");
    fixture
        .until_status("left", "reserves no address", RECONCILE_TIMEOUT, |status| status.node_addresses.is_empty())
        .await?;
    let waited = started.elapsed();
    ensure!(waited >= NODE_GRACE_PERIOD, "the new operator reserved the address for only {waited:?}");
    stop.cancel();
    Ok(())
}

async fn at_most_eight(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("eight", json!({"subnets": [{"ipv4": "10.63.0.0/24"}]})).await?;
    fixture.until_ready("eight").await?;
    fixture.node("greedy").await?;
    let addresses: Vec<String> = (0..20).map(|last| format!("10.63.0.{last}")).collect();
    let mut all = vec![("Hostname", "10.63.0.200")];
    all.extend(addresses.iter().map(|address| ("InternalIP", address.as_str())));
    all.push(("InternalIP", "10.66.0.9"));
    set_addresses(fixture, "greedy", &all).await?;
    let status = fixture
        .until_status("eight", "has a conflict", RECONCILE_TIMEOUT, |status| {
            says(status, condition::ADDRESS_CONFLICT) == "True"
        })
        .await?;
    ensure!(status.node_addresses == addresses[..8], "{status:?}");
    // The operator reserves only eight of the Node's addresses, but it must compare a new pool with all of them.
    fixture.pool("last", json!({"subnets": [{"ipv4": "10.66.0.0/24"}]})).await?;
    let status = fixture.until_status("last", "is refused", RECONCILE_TIMEOUT, is_refused).await?;
    let message = why(&status, condition::ACCEPTED);
    ensure!(message.starts_with("NodeAddress: ") && message.contains("10.66.0.9"), "{message}");
    fixture.delete_node("greedy").await
}

async fn services_later(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("earlier", json!({"subnets": [{"ipv4": "10.65.0.0/24"}]})).await?;
    fixture.until_ready("earlier").await?;
    add_service_range(fixture, "later-services", "10.65.0.0/28").await?;
    let status = fixture
        .until_status("earlier", "has a conflict", RECONCILE_TIMEOUT, |status| {
            says(status, condition::ADDRESS_CONFLICT) == "True"
        })
        .await?;
    ensure!(why(&status, condition::ADDRESS_CONFLICT).contains("ServiceCIDR later-services"), "{status:?}");
    ensure!(accepted(&status) == 1, "{status:?}");
    await_event(fixture, "earlier", "ServiceRange", "later-services").await?;
    remove_service_range(fixture, "later-services").await?;
    fixture
        .until_status("earlier", "has no conflict", RECONCILE_TIMEOUT, |status| {
            says(status, condition::ADDRESS_CONFLICT) == "False"
        })
        .await?;
    Ok(())
}
