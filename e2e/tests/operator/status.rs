//! Tests the status of a pool. Its counts are correct, the operator sets its conditions at once, and the operator
//! writes it only after a change.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bobbin_crds::{AddressPoolStatus, FINALIZER};
use bobbin_e2e::ports::free_port;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use bobbin_messages::condition;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, WatchParams};
use libtest_mimic::Trial;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, metrics_page, says, why};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("status counts become correct, and nothing is written while nothing changes", counts),
        suite.test("the condition Exhausted is set and cleared at once", exhaustion),
        suite.test("near exhaustion, the status is written at most five times per second", write_rate),
        suite.test("a draining pool has the reason Draining, and no condition asks for addresses", draining),
        suite.test("a pool that admits no node says so until a Node gets the label", no_node_admitted),
        suite.test("void assignments are counted by the metric, and by no pool", void_assignments),
    ]
}

async fn counts(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("count-node").await?;
    let spec = json!({"subnets": [{"ipv4": "10.70.0.0/24", "ipv6": "fd70::/120"}], "cooldownSeconds": 600});
    fixture.pool("count", spec).await?;
    fixture.until_ready("count").await?;
    fixture.claim("count-0", "count-node", &uid).await?;
    for last in 0..10 {
        fixture.create_assignment(&format!("10.70.0.{last}"), "count-0", "count-node").await?;
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
    fixture.until_status("count", "counts 10", RECONCILE_TIMEOUT, is(10, 0)).await?;
    for last in 0..4 {
        fixture.forget(&format!("10.70.0.{last}")).await?;
    }
    fixture.until_status("count", "counts 6 used and 4 cooling addresses", RECONCILE_TIMEOUT, is(6, 4)).await?;
    fixture.change("count", json!({"cooldownSeconds": 1})).await?;
    fixture.until_status("count", "counts 6 used and no cooling addresses", RECONCILE_TIMEOUT, is(6, 0)).await?;
    // Wait until the resourceVersion has stayed the same for three intervals of the status update. At first, each
    // operator may still write once, when it sees that the last address has cooled down. Nodes of other tests change
    // nothing, because all 8 blocks already exist.
    let pools = fixture.pools();
    let quiet = Mutex::new((None, Instant::now()));
    wait_until("the operators have not written the status for three intervals", RECONCILE_TIMEOUT, || async {
        let now = pools.get("count").await?.metadata.resource_version;
        let mut quiet = quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if now != quiet.0 {
            *quiet = (now, Instant::now());
        }
        let so_far = quiet.1.elapsed();
        Ok(check(so_far > Duration::from_secs(3), || {
            format!("the resourceVersion has been {:?} for {} ms", quiet.0, so_far.as_millis())
        }))
    })
    .await?;
    fixture.until_status("count", "still counts 6", RECONCILE_TIMEOUT, is(6, 0)).await.map(drop)
}

async fn exhaustion(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("full-node").await?;
    fixture
        .pool("full", json!({"subnets": [{"ipv4": "10.71.0.0/30"}], "blockSizeBits": 2, "reserved": ["10.71.0.0"]}))
        .await?;
    fixture.until_ready("full").await?;
    fixture.claim("full-0", "full-node", &uid).await?;
    for last in 1..4 {
        fixture.create_assignment(&format!("10.71.0.{last}"), "full-0", "full-node").await?;
    }
    let exhausted = |status: &AddressPoolStatus| says(status, condition::EXHAUSTED) == "True";
    let status = fixture.until_status("full", "is exhausted", RECONCILE_TIMEOUT, exhausted).await?;
    ensure!(why(&status, condition::EXHAUSTED).contains("append a subnet"), "{status:?}");
    ensure!(says(&status, condition::READY) == "True" && status.free_window.is_none(), "{status:?}");
    wait_until("the pool has an event with the reason Exhausted", RECONCILE_TIMEOUT, || async {
        let events: Api<Event> = Api::namespaced(fixture.client(), "default");
        let events = events.list(&ListParams::default()).await?.items;
        let said = events.iter().any(|event| {
            event.reason.as_deref() == Some("Exhausted")
                && event.regarding.as_ref().is_some_and(|pool| pool.name.as_deref() == Some("full"))
        });
        Ok(if said { Poll::Ready(()) } else { Poll::Pending(format!("{} events", events.len())) })
    })
    .await?;
    fixture.forget("10.71.0.2").await?;
    fixture
        .until_status("full", "is not exhausted", RECONCILE_TIMEOUT, |status| {
            says(status, condition::EXHAUSTED) == "False"
        })
        .await?;
    fixture.create_assignment("10.71.0.2", "full-0", "full-node").await?;
    fixture.until_status("full", "is exhausted again", RECONCILE_TIMEOUT, exhausted).await?;
    fixture.change("full", json!({"subnets": [{"ipv4": "10.71.0.0/30"}, {"ipv4": "10.71.1.0/30"}]})).await?;
    fixture
        .until_status("full", "has room again", RECONCILE_TIMEOUT, |status| {
            says(status, condition::EXHAUSTED) == "False" && status.free_window.is_some()
        })
        .await?;
    Ok(())
}

/// Repeatedly claims and releases the only block of a pool, without pauses. Counts how often the operators write the
/// pool's status meanwhile.
async fn write_rate(fixture: &mut OperatorFixture) -> Result<()> {
    /// The maximum rate of status writes. Both operators of the fixture lead, and each may write five times a second.
    const MAX_WRITES_PER_SECOND: f64 = 2.0 * 5.0;
    const DURATION: Duration = Duration::from_secs(4);
    fixture.pool("rate", json!({"subnets": [{"ipv4": "10.16.0.0/30"}], "blockSizeBits": 2})).await?;
    fixture.until_ready("rate").await?;
    wait_until("the block exists", RECONCILE_TIMEOUT, || async {
        let found = fixture.blocks_of("rate").await?.len();
        Ok(check(found == 1, || format!("{found} blocks")))
    })
    .await?;
    let version = fixture.pools().get("rate").await?.metadata.resource_version.unwrap_or_default();
    let of_pool = WatchParams::default().fields("metadata.name=rate");
    let mut events = fixture.pools().watch(&of_pool, &version).await?.boxed();
    let claim = json!({"metadata": {"finalizers": [FINALIZER]}, "spec": {"nodeName": "a-node", "nodeUID": "a-uid"}});
    let release = json!({"metadata": {"finalizers": null}, "spec": {"nodeName": null, "nodeUID": null}});
    let start = Instant::now();
    let mut changes = 0;
    while start.elapsed() < DURATION {
        for patch in [&claim, &release] {
            fixture.patch_block("rate-0", patch).await?;
            changes += 1;
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let mut writes = 0;
    // While changes are pending, the operators write more than once a second. So a second without an event means that
    // they have made their last write.
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), events.next()).await {
        event?;
        writes += 1;
    }
    let allowed = MAX_WRITES_PER_SECOND * (elapsed + 1.0);
    ensure!(
        f64::from(changes) > 2.0 * allowed,
        "the test made only {changes} changes in {elapsed} s, so it proves nothing"
    );
    ensure!(
        writes > 0 && f64::from(writes) <= allowed,
        "{changes} changes in {elapsed} s caused too many or no writes of the status: {writes}"
    );
    fixture
        .until_status("rate", "shows the free block", RECONCILE_TIMEOUT, |status| status.blocks.free == 1)
        .await
        .map(drop)
}

async fn draining(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("drain", json!({"subnets": [{"ipv4": "10.72.0.0/24"}]})).await?;
    fixture.until_ready("drain").await?;
    fixture.change("drain", json!({"draining": true})).await?;
    fixture
        .until_status("drain", "reports that it is draining", RECONCILE_TIMEOUT, |status| {
            let is_draining = |type_| why(status, type_).starts_with("Draining: ");
            [condition::READY, condition::BLOCKS_EXHAUSTED, condition::EXHAUSTED].into_iter().all(is_draining)
        })
        .await?;
    fixture.change("drain", json!({"draining": false})).await?;
    let status = fixture.until_ready("drain").await?;
    ensure!(says(&status, condition::EXHAUSTED) == "False", "{status:?}");
    Ok(())
}

async fn no_node_admitted(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.node("without-gpu").await?;
    fixture
        .pool("gpu", json!({"subnets": [{"ipv4": "10.74.0.0/24"}], "nodeSelector": {"matchLabels": {"gpu": "yes"}}}))
        .await?;
    let is_alone = |status: &AddressPoolStatus| {
        let text = why(status, condition::READY);
        text.starts_with("NoNodeAdmitted: ") && text.contains("\"gpu=yes\"")
    };
    let status = fixture.until_status("gpu", "says that it admits no node", RECONCILE_TIMEOUT, is_alone).await?;
    // The pool must be Ready even if it admits no node. Agents claim only blocks of ready pools, so the first admitted
    // node would otherwise wait for the operator.
    ensure!(says(&status, condition::READY) == "True", "{status:?}");
    let label = Patch::Merge(json!({"metadata": {"labels": {"gpu": "yes"}}}));
    Api::<Node>::all(fixture.client()).patch("without-gpu", &PatchParams::default(), &label).await?;
    let is_used = |status: &AddressPoolStatus| why(status, condition::READY).starts_with("SubnetsAccepted: ");
    fixture.until_status("gpu", "admits the node", RECONCILE_TIMEOUT, is_used).await.map(drop)
}

async fn void_assignments(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("void-owner").await?;
    fixture.node("void-other").await?;
    fixture.pool("void", json!({"subnets": [{"ipv4": "10.73.0.0/24"}]})).await?;
    fixture.until_ready("void").await?;
    fixture.claim("void-0", "void-owner", &uid).await?;
    let port = free_port()?;
    let stop = CancellationToken::new();
    let _stop_at_end = stop.clone().drop_guard();
    fixture.operator("counting", &["--no-leader-election", &format!("--metrics-address=127.0.0.1:{port}")], stop)?;
    fixture.create_assignment("10.73.0.1", "void-0", "void-owner").await?;
    until_counted(fixture, port, 0).await?;
    // Create two void assignments. The node of the first does not own its block, and the block of the second does not
    // exist.
    fixture.create_assignment("10.73.0.2", "void-0", "void-other").await?;
    fixture.create_assignment("10.73.0.65", "void-900", "void-owner").await?;
    until_counted(fixture, port, 2).await?;
    let one = |status: &AddressPoolStatus| status.used == 1;
    fixture.until_status("void", "counts only the assignment of the owner", RECONCILE_TIMEOUT, one).await?;
    fixture.forget("10.73.0.2").await?;
    until_counted(fixture, port, 1).await?;
    fixture.forget("10.73.0.65").await?;
    until_counted(fixture, port, 0).await
}

/// Counts the void assignments in the API. An assignment is void if its node does not own its block.
async fn void_in_api(fixture: &OperatorFixture) -> Result<usize> {
    let blocks = fixture.blocks().list(&ListParams::default()).await?.items;
    let owned = |name: &str, node: &str| {
        let block = blocks.iter().find(|block| block.metadata.name.as_deref() == Some(name));
        block.is_some_and(|block| block.spec.node_name.as_deref() == Some(node))
    };
    let assignments = fixture.assignments().list(&ListParams::default()).await?.items;
    Ok(assignments.iter().filter(|one| !owned(&one.spec.block_name, &one.spec.node_name)).count())
}

/// Waits until the operator's metric equals the number of void assignments in the API. The number is at least `own`,
/// because other tests may have left void assignments.
async fn until_counted(fixture: &OperatorFixture, port: u16, own: usize) -> Result<()> {
    wait_until(
        &format!("the operator has counted all void assignments, which are at least {own}"),
        RECONCILE_TIMEOUT,
        || async {
            let in_api = void_in_api(fixture).await?;
            // Ignore errors, because the operator may not serve its metrics yet.
            let page = metrics_page(port).await.unwrap_or_default();
            let counted = page.lines().find_map(|line| line.strip_prefix("bobbin_operator_void_assignments "));
            let equal = in_api >= own && counted == Some(&in_api.to_string());
            Ok(check(equal, || format!("the API has {in_api} void assignments, but the metric is {counted:?}")))
        },
    )
    .await
}
