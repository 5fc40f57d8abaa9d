//! The leader freezes after it has sent a write. Its Lease expires, another operator does the work, and the cluster
//! changes. Then the late write reaches the API server, and the former leader wakes up.
//!
//! The tests of crash points also freeze an operator in each of its writes. But in those tests both operators lead, and
//! nothing else changes meanwhile. In the tests here, a new object of the same name has replaced the write's object, or
//! the object has a new owner.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::api_proxy::{ObservedRequest, Selector};
use bobbin_e2e::suite::Suite;
use kube::api::DeleteParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::elected_operators::Operators;
use crate::fixture::{NODE_GRACE_PERIOD, OperatorFixture, RECONCILE_TIMEOUT};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test(
            "a leader woken in the middle of an acceptance or of carving gives no address to two blocks",
            async |_: &mut _| Box::pin(acceptance_and_carving()).await,
        ),
        suite.test(
            "a leader woken in the middle of a release or a deletion takes nothing from the new owner",
            async |_: &mut _| Box::pin(release_and_deletion()).await,
        ),
    ]
}

async fn acceptance_and_carving() -> Result<()> {
    let operators = Operators::start().await?;
    let fixture = &operators.fixture;
    let create_late = || async { fixture.pool("late", spec("10.60.0.0/29")).await.map(drop) };
    // After `replace`, the pool `late` has another subnet, and its old subnet belongs to the pool `rival`.
    let replace = || async {
        until_carved(fixture, "late", 4).await?;
        delete_pool(fixture, "late").await?;
        for (pool, subnet, blocks) in [("rival", "10.60.0.0/29", 4), ("late", "10.60.1.0/30", 2)] {
            fixture.pool(pool, spec(subnet)).await?;
            until_carved(fixture, pool, blocks).await?;
        }
        Ok(())
    };
    // The leader's first patch adds the finalizer, the second proposes the subnet, and the third accepts it. Hold the
    // third patch.
    let acceptance = Selector::verbs(&["patch"]).of("addresspools").named("late");
    let writes =
        operators.late_write(acceptance, 2, create_late(), Box::pin(replace())).await.context("a late acceptance")?;
    ensure!(
        writes[0].body.contains("/acceptedSubnets/0/state"),
        "the test held a write that accepts no subnet: {}",
        writes[0].body
    );
    all_refused(&writes)?;
    for pool in ["rival", "late"] {
        delete_pool(fixture, pool).await?;
    }
    let creations = Selector::verbs(&["create"]).of("addressblocks");
    let writes =
        operators.late_write(creations, 3, create_late(), Box::pin(replace())).await.context("a late block")?;
    // No precondition protects a create, so the API server may execute the late create. The new leader then deletes the
    // created block, because the block is outside of its pool.
    ensure!(
        matches!(writes[0].answer, Some(201 | 409)),
        "the API server answered the late creation with {:?}",
        writes[0].answer
    );
    all_refused(&writes[1..])
}

async fn release_and_deletion() -> Result<()> {
    let operators = Operators::start().await?;
    let fixture = &operators.fixture;
    let (address, block) = ("10.60.2.0", "nodes-0");
    let take = async |block: &str, node: &str, uid: &str| {
        fixture.claim(block, node, uid).await?;
        fixture.create_assignment(address, block, node).await
    };
    let delete_node = || async {
        fixture.taint_out_of_service("gone").await?;
        fixture.delete_node("gone").await
    };
    fixture.pool("nodes", spec("10.60.2.0/29")).await?;
    until_carved(fixture, "nodes", 4).await?;
    take(block, "gone", &fixture.node("gone").await?).await?;
    let release = Selector::verbs(&["patch"]).of("addressblocks").named(block);
    let return_of_node = async {
        fixture.until_free(block, NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
        take(block, "gone", &fixture.node("gone").await?).await
    };
    let writes =
        operators.late_write(release, 0, delete_node(), Box::pin(return_of_node)).await.context("a late release")?;
    all_refused(&writes)?;
    is_held(fixture, address, block, "gone").await?;

    let deletion = Selector::verbs(&["delete"]).of("ipassignments").named(address);
    let heir = fixture.node("heir").await?;
    let inherit = async {
        fixture.until_free(block, NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
        take(block, "heir", &heir).await
    };
    let writes =
        operators.late_write(deletion, 0, delete_node(), Box::pin(inherit)).await.context("a late deletion")?;
    all_refused(&writes)?;
    is_held(fixture, address, block, "heir").await?;

    fixture.forget(address).await?;
    fixture.release(block).await?;
    fixture.until_free(block, RECONCILE_TIMEOUT).await?;
    let deletion = Selector::verbs(&["delete"]).of("addressblocks").named(block);
    let delete = async { Ok(fixture.pools().delete("nodes", &DeleteParams::default()).await.map(drop)?) };
    let carve_again = async {
        fixture.until_gone("nodes").await?;
        fixture.pool("nodes", spec("10.60.2.0/29")).await?;
        until_carved(fixture, "nodes", 4).await?;
        take(block, "heir", &heir).await
    };
    let writes = operators
        .late_write(deletion, 0, delete, Box::pin(carve_again))
        .await
        .context("a late deletion of a block was harmful")?;
    all_refused(&writes)?;
    is_held(fixture, address, block, "heir").await
}

/// The spec of a pool whose blocks have two addresses each.
fn spec(subnet: &str) -> Value {
    json!({"subnets": [{"ipv4": subnet}], "blockSizeBits": 1, "cooldownSeconds": 0})
}

async fn until_carved(fixture: &OperatorFixture, pool: &str, blocks: i64) -> Result<()> {
    let status = fixture.until_status(pool, "is carved", RECONCILE_TIMEOUT, |status| {
        status.free_window.is_some_and(|window| window.free == blocks)
    });
    status.await.map(drop)
}

async fn delete_pool(fixture: &OperatorFixture, pool: &str) -> Result<()> {
    fixture.pools().delete(pool, &DeleteParams::default()).await?;
    fixture.until_gone(pool).await
}

/// Checks that the API server refused every one of these writes.
fn all_refused(writes: &[ObservedRequest]) -> Result<()> {
    for ObservedRequest { verb, name, body, answer, .. } in writes {
        // The API server answers 404 if the object is gone, and 409 if a precondition fails. It answers 422 if a `test`
        // operation of a JSON patch fails.
        ensure!(
            matches!(answer, Some(404 | 409 | 422)),
            "the API server answered the late {verb} of {name} with {answer:?}; its body is {body}"
        );
    }
    Ok(())
}

/// Checks that the node owns the block, and that the assignment of the address names the node. Also fails if one of the
/// two objects is being deleted.
async fn is_held(fixture: &OperatorFixture, address: &str, block: &str, node: &str) -> Result<()> {
    let (owned, assignment) = (fixture.blocks().get(block).await?, fixture.assignments().get(address).await?);
    ensure!(
        owned.spec.node_name.as_deref() == Some(node),
        "block {block} must belong to {node}, but belongs to {:?}",
        owned.spec.node_name
    );
    ensure!(
        assignment.spec.node_name == node,
        "address {address} must belong to {node}, but belongs to {}",
        assignment.spec.node_name
    );
    let deleting = owned.metadata.deletion_timestamp.or(assignment.metadata.deletion_timestamp);
    ensure!(deleting.is_none(), "block {block} or the assignment of {address} is being deleted");
    Ok(())
}
