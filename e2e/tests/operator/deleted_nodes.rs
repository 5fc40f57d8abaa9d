//! After the grace period, and not before, the operator releases the blocks of a deleted node and deletes its
//! assignments.

use anyhow::{Result, ensure};
use bobbin_crds::AddressPoolStatus;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{NODE_GRACE_PERIOD, OperatorFixture, RECONCILE_TIMEOUT};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test(
            "a deleted node's addresses and blocks are free after the grace period, and released ones are not written again",
            after_the_wait,
        ),
        suite.test("a deleted node's addresses and blocks are free at once if it was out of service", at_once),
        suite.test("events tell that a Node with addresses was deleted, and that they are released", events),
        suite.test("a node created again within the grace period keeps its addresses and blocks", made_anew),
    ]
}

async fn after_the_wait(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("nodes", json!({"subnets": [{"ipv4": "10.60.0.0/16"}]})).await?;
    fixture.until_ready("nodes").await?;
    let mut uids = Vec::new();
    for (number, node) in ["gave-up", "witness-1", "lost"].into_iter().enumerate() {
        let uid = fixture.node(node).await?;
        fixture.claim(&format!("nodes-{number}"), node, &uid).await?;
        uids.push(uid);
    }
    fixture.create_assignment("10.60.0.65", "nodes-2", "lost").await?;
    fixture.create_assignment("10.60.0.66", "nodes-2", "lost").await?;
    // No Node can have the name `witness-1,`. In a field selector, this name would select the objects of the Node
    // witness-1.
    fixture.create_assignment("10.60.0.33", "nodes-1", "witness-1").await?;
    fixture.create_assignment("10.60.0.34", "nodes-1", "witness-1,").await?;
    fixture.release("nodes-0").await?;
    let given_up = fixture.until_free("nodes-0", RECONCILE_TIMEOUT).await?;
    let deleted = Timestamp::now();
    for node in ["gave-up", "lost"] {
        fixture.delete_node(node).await?;
    }
    let block = fixture.until_free("nodes-2", NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
    let waited = block.spec.free_since.as_ref().is_some_and(|time| time.0 >= deleted + NODE_GRACE_PERIOD);
    ensure!(
        waited && block.spec.node_uid.is_none(),
        "the operator freed the block before the grace period had ended: {:?}",
        block.spec
    );
    for address in ["10.60.0.65", "10.60.0.66"] {
        ensure!(fixture.assignments().get_opt(address).await?.is_none(), "{address} still has an assignment");
    }
    ensure!(fixture.owner("nodes-1").await? == "witness-1", "the operator released a block of the Node witness-1");
    for address in ["10.60.0.33", "10.60.0.34"] {
        ensure!(
            fixture.assignments().get_opt(address).await?.is_some(),
            "the operator deleted the assignment {address}"
        );
        fixture.forget(address).await?;
    }
    let now = fixture.blocks().get("nodes-0").await?;
    ensure!(
        now.metadata.resource_version == given_up.metadata.resource_version,
        "the operator wrote a block that was already free"
    );
    fixture
        .until_status("nodes", "counts one block", RECONCILE_TIMEOUT, |status| {
            status.used == 0 && status.blocks.claimed == 1
        })
        .await?;
    Ok(())
}

async fn at_once(_: &mut OperatorFixture) -> Result<()> {
    // The grace period is longer than the test, so a block that becomes free did not wait for the grace period.
    let fixture = OperatorFixture::without_operators().await?;
    let stop = CancellationToken::new();
    fixture.operator("patient", &["--no-leader-election", "--node-grace-period=24h"], stop.clone())?;
    fixture.pool("nodes", json!({"subnets": [{"ipv4": "10.60.0.0/16"}]})).await?;
    fixture.until_ready("nodes").await?;
    for (number, node) in ["out", "lost"].into_iter().enumerate() {
        let uid = fixture.node(node).await?;
        fixture.claim(&format!("nodes-{number}"), node, &uid).await?;
    }
    fixture.create_assignment("10.60.0.1", "nodes-0", "out").await?;
    fixture.taint_out_of_service("out").await?;
    for node in ["lost", "out"] {
        fixture.delete_node(node).await?;
    }
    let block = fixture.until_free("nodes-0", RECONCILE_TIMEOUT).await?;
    ensure!(block.spec.free_since.is_some() && block.spec.node_uid.is_none(), "{:?}", block.spec);
    ensure!(
        fixture.assignments().get_opt("10.60.0.1").await?.is_none(),
        "the block is free, but one of its addresses still has an assignment"
    );
    ensure!(
        fixture.owner("nodes-1").await? == "lost",
        "the operator freed the lost node's block before the grace period had ended"
    );
    stop.cancel();
    Ok(())
}

async fn events(_: &mut OperatorFixture) -> Result<()> {
    // Use a separate control plane. Otherwise the deleted nodes of other tests would cause events about many nodes.
    let fixture = OperatorFixture::without_operators().await?;
    let stop = CancellationToken::new();
    fixture.operator("reporting", &["--no-leader-election"], stop.clone())?;
    fixture.pool("nodes", json!({"subnets": [{"ipv4": "10.60.0.0/16"}]})).await?;
    fixture.until_ready("nodes").await?;
    let uid = fixture.node("busy").await?;
    fixture.claim("nodes-0", "busy", &uid).await?;
    for address in ["10.60.0.1", "10.60.0.2"] {
        fixture.create_assignment(address, "nodes-0", "busy").await?;
    }
    let counts = |status: &AddressPoolStatus| status.used == 2;
    fixture.until_status("nodes", "counts the addresses", RECONCILE_TIMEOUT, counts).await?;
    fixture.delete_node_unannounced("busy").await?;
    let owned = "1 block and 2 addresses of pool nodes";
    let deleted = format!("Node busy was deleted, so the operator releases the node's {owned} at 2");
    until_warned(&fixture, "busy", "NodeDeleted", &deleted).await?;
    ensure!(fixture.owner("nodes-0").await? == "busy", "the event must come before the release");
    let released = format!("the operator released {owned} of node busy, because Node busy was deleted");
    until_warned(&fixture, "busy", "NodeAddressesReleased", &released).await?;
    ensure!(fixture.owner("nodes-0").await?.is_empty(), "the event must come after the release");
    let all = about_node(&fixture, "busy").await?;
    ensure!(all.len() == 2 && all.iter().all(|event| event.series.is_none()), "one event of each kind: {all:?}");
    stop.cancel();
    Ok(())
}

/// The events about a Node.
async fn about_node(fixture: &OperatorFixture, node: &str) -> Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(fixture.client(), "default");
    let is_about = |event: &Event| {
        event
            .regarding
            .as_ref()
            .is_some_and(|one| one.kind.as_deref() == Some("Node") && one.name.as_deref() == Some(node))
    };
    Ok(events.list(&ListParams::default()).await?.items.into_iter().filter(is_about).collect())
}

/// Waits for a Warning about a Node whose note begins with these words.
async fn until_warned(fixture: &OperatorFixture, node: &str, reason: &str, words: &str) -> Result<()> {
    wait_until(&format!("a Warning {reason} about Node {node}"), NODE_GRACE_PERIOD + RECONCILE_TIMEOUT, || async {
        let all = about_node(fixture, node).await?;
        let is_it = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.type_.as_deref() == Some("Warning")
                && event.note.as_ref().is_some_and(|note| note.starts_with(words))
        };
        Ok(check(all.iter().any(is_it), || format!("{all:?}")))
    })
    .await
}

async fn made_anew(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("anew", json!({"subnets": [{"ipv4": "10.61.0.0/16"}]})).await?;
    fixture.until_ready("anew").await?;
    let old = fixture.node("anew-node").await?;
    fixture.node("witness").await.map(|_| ())?;
    fixture.claim("anew-0", "anew-node", &old).await?;
    fixture.create_assignment("10.61.0.1", "anew-0", "anew-node").await?;
    fixture.claim("anew-1", "witness", "uid").await?;
    fixture.delete_node("anew-node").await?;
    fixture.node("anew-node").await?;
    fixture.delete_node("witness").await?;
    // The node `witness` was deleted after `anew-node`. So when the block of `witness` is free, the grace period of the
    // first deletion has ended too.
    fixture.until_free("anew-1", NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
    wait_until("the node that was created again keeps its block and address", RECONCILE_TIMEOUT, || async {
        let owner = fixture.owner("anew-0").await?;
        let assignment = fixture.assignments().get_opt("10.61.0.1").await?;
        Ok(check(owner == "anew-node" && assignment.is_some(), || owner))
    })
    .await
}
