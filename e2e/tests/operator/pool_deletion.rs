//! Tests the deletion of pools. A pool stays until its last address is released, and its status names the nodes that
//! use it.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_crds::FINALIZER;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use bobbin_messages::condition;
use kube::api::{DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, says, why};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("a deleted pool waits for its last address and names the nodes that hold its blocks", waits),
        suite.test("a pool deleted in the foreground keeps its claimed blocks", foreground),
        suite.test("an unused pool is deleted at once with its blocks", unused),
        suite.test("a deleted pool stays until its released addresses have cooled down", cools),
        suite.test("a pool created again under the same name is carved again", again),
    ]
}

async fn waits(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("ending", json!({"subnets": [{"ipv4": "10.50.0.0/24"}], "cooldownSeconds": 1})).await?;
    fixture.until_ready("ending").await?;
    fixture.claim("ending-1", "holder-1", "uid-1").await?;
    fixture.claim("ending-2", "holder-2", "uid-2").await?;
    for address in ["10.50.0.32", "10.50.0.33"] {
        fixture.create_assignment(address, "ending-1", "holder-1").await?;
    }
    fixture.pools().delete("ending", &DeleteParams::default()).await?;
    let told = |status: &bobbin_crds::AddressPoolStatus| {
        why(status, condition::TERMINATING).contains("holder-1 (2)") && says(status, condition::READY) == "False"
    };
    let status = fixture.until_status("ending", "names the nodes that use it", RECONCILE_TIMEOUT, told).await?;
    ensure!(why(&status, condition::TERMINATING).contains("2 addresses in 2 claimed blocks"), "{status:?}");
    wait_until("the operator has deleted the free blocks and kept the claimed blocks", RECONCILE_TIMEOUT, || async {
        let blocks = fixture.blocks_of("ending").await?;
        Ok(check(blocks.len() == 2, || format!("{} blocks", blocks.len())))
    })
    .await?;
    // Delete the assignments and release the blocks. Ignore missing objects: holder-1 and holder-2 have no Node
    // objects, so the operator may already have released what they own.
    for address in ["10.50.0.32", "10.50.0.33"] {
        let _ = fixture.forget(address).await;
    }
    fixture
        .release("ending-1")
        .await
        .or_else(|error| if error.to_string().contains("NotFound") { Ok(()) } else { Err(error) })?;
    fixture
        .release("ending-2")
        .await
        .or_else(|error| if error.to_string().contains("NotFound") { Ok(()) } else { Err(error) })?;
    fixture.until_gone("ending").await?;
    ensure!(fixture.blocks_of("ending").await?.is_empty(), "the pool is gone, but some of its blocks still exist");
    Ok(())
}

async fn foreground(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("front-node").await?;
    fixture.pool("front", json!({"subnets": [{"ipv4": "10.51.0.0/24"}], "cooldownSeconds": 1})).await?;
    fixture.until_ready("front").await?;
    fixture.claim("front-0", "front-node", &uid).await?;
    fixture.create_assignment("10.51.0.1", "front-0", "front-node").await?;
    fixture.pools().delete("front", &DeleteParams::foreground()).await?;
    fixture
        .until_status("front", "names the nodes that use it", RECONCILE_TIMEOUT, |status| {
            why(status, condition::TERMINATING).contains("front-node (1)")
        })
        .await?;
    wait_until("only the claimed block of the pool is left", RECONCILE_TIMEOUT, || async {
        let blocks = fixture.blocks_of("front").await?;
        Ok(check(blocks.len() == 1, || format!("{} blocks", blocks.len())))
    })
    .await?;
    let block = fixture.blocks().get("front-0").await?;
    ensure!(
        block.metadata.deletion_timestamp.is_none() && fixture.owner("front-0").await? == "front-node",
        "{block:?}"
    );
    fixture.forget("10.51.0.1").await?;
    fixture.release("front-0").await?;
    // No garbage collector is running, so the finalizer of Kubernetes stays. The operator must remove Bobbin's
    // finalizer.
    wait_until("the operator has removed Bobbin's finalizer", RECONCILE_TIMEOUT, || async {
        let finalizers = fixture.pools().get("front").await?.metadata.finalizers.unwrap_or_default();
        Ok(check(finalizers.iter().all(|finalizer| finalizer != FINALIZER), || format!("{finalizers:?}")))
    })
    .await?;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    fixture.pools().patch("front", &PatchParams::default(), &none).await?;
    fixture.until_gone("front").await
}

async fn unused(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("unused", json!({"subnets": [{"ipv4": "10.52.0.0/24"}]})).await?;
    fixture.until_ready("unused").await?;
    let foreign = |finalizers: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let set =
        async |finalizers| fixture.blocks().patch("unused-0", &PatchParams::default(), &foreign(finalizers)).await;
    set(json!(["example.com/keep"])).await?;
    fixture.pools().delete("unused", &DeleteParams::default()).await?;
    fixture
        .until_status("unused", "names the block that another program keeps", RECONCILE_TIMEOUT, |status| {
            why(status, condition::TERMINATING)
                .contains("AddressBlock unused-0, because another program put a finalizer on the block")
        })
        .await?;
    set(json!(null)).await?;
    fixture.until_gone("unused").await?;
    wait_until("no block of the pool is left", Duration::from_mins(1), || async {
        let blocks = fixture.blocks_of("unused").await?;
        Ok(check(blocks.is_empty(), || format!("{} blocks", blocks.len())))
    })
    .await
}

async fn cools(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("cool-node").await?;
    let spec = |cooldown| json!({"subnets": [{"ipv4": "10.55.0.0/26"}], "cooldownSeconds": cooldown});
    fixture.pool("cooling", spec(600)).await?;
    fixture.until_ready("cooling").await?;
    fixture.claim("cooling-0", "cool-node", &uid).await?;
    fixture.create_assignment("10.55.0.1", "cooling-0", "cool-node").await?;
    fixture.pools().delete("cooling", &DeleteParams::default()).await?;
    fixture.forget("10.55.0.1").await?;
    fixture.release("cooling-0").await?;
    fixture
        .until_status("cooling", "says that it waits for the cool-down", RECONCILE_TIMEOUT, |status| {
            why(status, condition::TERMINATING).contains("have cooled down, which takes up to 600 s")
        })
        .await?;
    ensure!(fixture.blocks_of("cooling").await?.len() == 1, "only the used block must be left");
    // Another pool gets the subnet only after the addresses have cooled down.
    fixture.pool("cooling-next", spec(0)).await?;
    fixture
        .until_status("cooling-next", "names the pool that still has the subnet", RECONCILE_TIMEOUT, |status| {
            why(status, condition::ACCEPTED).contains("pool \"cooling\"")
        })
        .await?;
    // The operator must replace a `freeSince` in the future, because the block would cool down until that time.
    fixture.patch_block("cooling-0", &json!({"spec": {"freeSince": "2099-01-01T00:00:00.000000Z"}})).await?;
    wait_until("the operator has replaced the time in the future", RECONCILE_TIMEOUT, || async {
        let since = fixture.blocks().get("cooling-0").await?.spec.free_since;
        let is_past = since.as_ref().is_some_and(|since| since.0 <= k8s_openapi::jiff::Timestamp::now());
        Ok(check(is_past, || format!("{since:?}")))
    })
    .await?;
    fixture.change("cooling", json!({"cooldownSeconds": 0})).await?;
    fixture.until_gone("cooling").await?;
    fixture.until_ready("cooling-next").await.map(drop)
}

async fn again(fixture: &mut OperatorFixture) -> Result<()> {
    for subnet in ["10.53.0.0/24", "10.54.0.0/24", "10.53.0.0/25"] {
        fixture.pool("again", json!({"subnets": [{"ipv4": subnet}]})).await?;
        fixture.until_ready("again").await?;
        let first = fixture.blocks_of("again").await?.first().and_then(|block| block.spec.ipv4.clone());
        ensure!(
            first == Some(subnet.replace("/24", "/27").replace("/25", "/27")),
            "the first block must be of the subnet {subnet}, but is {first:?}"
        );
        fixture.pools().delete("again", &DeleteParams::default()).await?;
        fixture.until_gone("again").await?;
    }
    Ok(())
}
