//! Tests reserved addresses. Some addresses are reserved because no pod can use them. Some entries of `reserved` do not
//! have the effect that their author wants.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::suite::Suite;
use bobbin_messages::condition;
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, says, why};
use crate::foreign_addresses::await_event;

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("the broadcast address is reserved in every pool", broadcast),
        suite.test("a reserved address outside of all subnets is reported", outside),
        suite.test("a reserved address that a pod has is reported and counts once", in_use),
        suite.test("a pool in which everything is reserved says so", everything),
    ]
}

async fn broadcast(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("highest", json!({"subnets": [{"ipv4": "255.255.255.252/30"}], "blockSizeBits": 2})).await?;
    let status = fixture.until_ready("highest").await?;
    let counts = status.addresses.ipv4.context("the status has no IPv4 counts")?;
    ensure!((counts.total, counts.reserved, counts.free) == (4, 1, 3), "{counts:?}");
    Ok(())
}

async fn outside(fixture: &mut OperatorFixture) -> Result<()> {
    let spec = json!({"subnets": [{"ipv4": "10.170.0.0/24"}], "reserved": ["10.170.0.1", "10.171.0.1", "fd00::1"]});
    fixture.pool("aside", spec).await?;
    let status = fixture
        .until_status("aside", "is accepted and misconfigured", RECONCILE_TIMEOUT, |status| {
            says(status, condition::MISCONFIGURED) == "True" && says(status, condition::ACCEPTED) == "True"
        })
        .await?;
    let message = why(&status, condition::MISCONFIGURED);
    ensure!(message.starts_with("ReservedOutside: ") && message.contains("10.171.0.1, fd00::1"), "{message}");
    await_event(fixture, "aside", "ReservedOutside", "10.171.0.1").await?;
    fixture.change("aside", json!({"reserved": ["10.170.0.1"]})).await?;
    fixture
        .until_status("aside", "is no longer misconfigured", RECONCILE_TIMEOUT, |status| {
            says(status, condition::MISCONFIGURED) == "False"
        })
        .await?;
    Ok(())
}

async fn in_use(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("late-reserver").await?;
    fixture.pool("late", json!({"subnets": [{"ipv4": "10.172.0.0/27"}], "cooldownSeconds": 0})).await?;
    fixture.until_ready("late").await?;
    fixture.claim("late-0", "late-reserver", &uid).await?;
    for last in 0..3 {
        fixture.create_assignment(&format!("10.172.0.{last}"), "late-0", "late-reserver").await?;
    }
    fixture.change("late", json!({"reserved": ["10.172.0.0/30"]})).await?;
    let status = fixture
        .until_status("late", "is misconfigured", RECONCILE_TIMEOUT, |status| {
            says(status, condition::MISCONFIGURED) == "True" && status.used == 3
        })
        .await?;
    let message = why(&status, condition::MISCONFIGURED);
    ensure!(
        message.contains("10.172.0.0, 10.172.0.1, 10.172.0.2") && message.starts_with("ReservedInUse: "),
        "{message}"
    );
    let counts = status.addresses.ipv4.context("the status has no IPv4 counts")?;
    ensure!((counts.total, counts.reserved, counts.assigned, counts.free) == (32, 1, 3, 28), "{counts:?}");
    await_event(fixture, "late", "ReservedInUse", "10.172.0.2").await?;
    for last in 0..3 {
        fixture.forget(&format!("10.172.0.{last}")).await?;
    }
    fixture
        .until_status("late", "is no longer misconfigured", RECONCILE_TIMEOUT, |status| {
            says(status, condition::MISCONFIGURED) == "False"
                && status.addresses.ipv4.is_some_and(|counts| (counts.reserved, counts.free) == (4, 28))
        })
        .await?;
    Ok(())
}

async fn everything(fixture: &mut OperatorFixture) -> Result<()> {
    fixture
        .pool("all-reserved", json!({"subnets": [{"ipv4": "10.173.0.0/24"}], "reserved": ["10.173.0.0/16"]}))
        .await?;
    let status = fixture
        .until_status("all-reserved", "is exhausted", RECONCILE_TIMEOUT, |status| {
            says(status, condition::EXHAUSTED) == "True"
        })
        .await?;
    let message = why(&status, condition::EXHAUSTED);
    ensure!(message.starts_with("AllReserved: ") && message.contains("remove entries of spec.reserved"), "{message}");
    ensure!(says(&status, condition::BLOCKS_EXHAUSTED) == "True", "{status:?}");
    fixture.change("all-reserved", json!({"reserved": ["10.173.0.0/25"]})).await?;
    fixture.until_ready("all-reserved").await.map(drop)
}
