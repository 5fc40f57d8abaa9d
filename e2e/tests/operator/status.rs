//! The status of a pool: counts become right, conditions at once, and no write for nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bobbin_crds::AddressPoolStatus;
use bobbin_crds::pool::condition;
use bobbin_e2e::until::{Look, so, until};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{SOON, World, says, why};

pub fn tests(world: &World) -> Vec<Trial> {
    vec![
        world.test("counts_become_right_and_nothing_is_written_while_nothing_changes", counts),
        world.test("exhaustion_shows_and_clears_at_once", exhaustion),
        world.test("a_draining_pool_says_so", draining),
    ]
}

async fn counts(world: World) -> Result<()> {
    let uid = world.node("count-node").await?;
    let spec = json!({"subnets": [{"ipv4": "10.70.0.0/24", "ipv6": "fd70::/120"}], "cooldownSeconds": 600});
    world.pool("count", spec).await?;
    world.until_ready("count").await?;
    world.claim("count-0", "count-node", &uid).await?;
    for last in 0..10 {
        world.record(&format!("10.70.0.{last}"), "count-0", "count-node").await?;
    }
    let is = |used: i64, cooling: i64| {
        move |status: &AddressPoolStatus| {
            let one = |counts: Option<bobbin_crds::pool::FamilyCounts>| {
                counts.is_some_and(|counts| {
                    (counts.total, counts.assigned, counts.cooling, counts.free)
                        == (256, used, cooling, 256 - used - cooling)
                })
            };
            one(status.addresses.ipv4)
                && one(status.addresses.ipv6)
                && (status.used, status.free) == (used, 256 - used - cooling)
                && (status.blocks.claimed, status.blocks.free) == (1, 7)
        }
    };
    world.until_status("count", "counts 10", SOON, is(10, 0)).await?;
    for last in 0..4 {
        world.forget(&format!("10.70.0.{last}")).await?;
    }
    world.until_status("count", "counts 6 and 4 that rest", SOON, is(6, 4)).await?;
    world.change("count", json!({"cooldownSeconds": 1})).await?;
    world.until_status("count", "counts 6 and none that rests", SOON, is(6, 0)).await?;
    // Idle: for three intervals of counts no version is another. Other tests make nodes, which may ask for more blocks; a pool
    // of 8 blocks has all of them. Two operators don't see the last address rest until the same instant, so each may have one
    // more word to say; that ends.
    let pools = world.pools()?;
    let quiet = Mutex::new((None, Instant::now()));
    until("three intervals without a write", SOON, || async {
        let now = pools.get("count").await?.metadata.resource_version;
        let mut quiet = quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if now != quiet.0 {
            *quiet = (now, Instant::now());
        }
        let so_far = quiet.1.elapsed();
        Ok(so(so_far > Duration::from_secs(3), || format!("version {:?} for {} ms", quiet.0, so_far.as_millis())))
    })
    .await?;
    world.until_status("count", "still counts 6", SOON, is(6, 0)).await.map(drop)
}

async fn exhaustion(world: World) -> Result<()> {
    let uid = world.node("full-node").await?;
    world
        .pool("full", json!({"subnets": [{"ipv4": "10.71.0.0/30"}], "blockSizeBits": 2, "reserved": ["10.71.0.0"]}))
        .await?;
    world.until_ready("full").await?;
    world.claim("full-0", "full-node", &uid).await?;
    for last in 1..4 {
        world.record(&format!("10.71.0.{last}"), "full-0", "full-node").await?;
    }
    let exhausted = |status: &AddressPoolStatus| says(status, condition::EXHAUSTED) == "True";
    let status = world.until_status("full", "is exhausted", SOON, exhausted).await?;
    ensure!(why(&status, condition::EXHAUSTED).contains("append a subnet"), "{status:?}");
    ensure!(says(&status, condition::READY) == "True" && status.free_window.is_none(), "{status:?}");
    until("an event on the pool says so", SOON, || async {
        let events: Api<Event> = Api::namespaced(world.client()?, "default");
        let events = events.list(&ListParams::default()).await?.items;
        let said = events.iter().any(|event| {
            event.reason.as_deref() == Some("Exhausted")
                && event.regarding.as_ref().is_some_and(|pool| pool.name.as_deref() == Some("full"))
        });
        Ok(if said { Look::Yes(()) } else { Look::NotYet(format!("{} events", events.len())) })
    })
    .await?;
    world.forget("10.71.0.2").await?;
    world
        .until_status("full", "is not exhausted", SOON, |status| says(status, condition::EXHAUSTED) == "False")
        .await?;
    world.record("10.71.0.2", "full-0", "full-node").await?;
    world.until_status("full", "is exhausted again", SOON, exhausted).await?;
    world.change("full", json!({"subnets": [{"ipv4": "10.71.0.0/30"}, {"ipv4": "10.71.1.0/30"}]})).await?;
    world
        .until_status("full", "has room again", SOON, |status| {
            says(status, condition::EXHAUSTED) == "False" && status.free_window.is_some()
        })
        .await?;
    Ok(())
}

async fn draining(world: World) -> Result<()> {
    world.pool("drain", json!({"subnets": [{"ipv4": "10.72.0.0/24"}]})).await?;
    world.until_ready("drain").await?;
    world.change("drain", json!({"draining": true})).await?;
    world
        .until_status("drain", "says that it drains", SOON, |status| {
            why(status, condition::READY).starts_with("Draining: ")
        })
        .await?;
    world.change("drain", json!({"draining": false})).await?;
    world.until_ready("drain").await?;
    Ok(())
}
