//! The tests kill the operator at each of its writes in turn, or freeze it there until a second operator has done the
//! step. The writes carve blocks, accept subnets, update the status, reclaim blocks and delete pools.
//!
//! Each run hits one write of the operator, and the next run hits the next write. The test ends when the operator makes
//! no further write.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::api_proxy::{ApiProxy, Fault, FaultGuard, Selector};
use bobbin_e2e::control_plane::{ADMIN, Process};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;
use xtask::artifacts::Artifacts;

use crate::fixture::{NODE_GRACE_PERIOD, OperatorFixture, RECONCILE_TIMEOUT, accepted};

/// The API verbs of all writes.
const WRITES: &[&str] = &["create", "update", "patch", "delete"];
/// The minimum number of writes that a walk must hit. With fewer writes, the test would cover too little.
const LEAST_POSITIONS: usize = 15;
/// The maximum number of writes that a walk hits.
const MAX_POSITIONS: usize = 100;
/// The interval at which the test checks whether the operator has reached the write.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![suite.test(
        "an operator killed or frozen at any of its writes leaves nothing that the next does not finish",
        async |_: &mut _| {
            // Run the three walks at the same time, because each of them mostly waits. A walk repeats the story with a
            // fault at each write in turn. Each walk has its own control plane.
            let walks = [Moment::BeforeWrite, Moment::AfterWrite, Moment::Frozen].map(at_each_write);
            futures::future::try_join_all(walks).await.map(drop)
        },
    )]
}

/// The fault that hits the operator at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The test sends SIGKILL before the write has reached the API server.
    BeforeWrite,
    /// The test sends SIGKILL after the API server has executed the write, and before the operator gets the answer.
    AfterWrite,
    /// The test sends SIGSTOP before the write has reached the API server. When another operator has done the step, the
    /// frozen operator and its write continue.
    Frozen,
}

/// The number of the step that [`story`] is currently in.
#[derive(Default)]
struct Progress(AtomicUsize);

async fn at_each_write(moment: Moment) -> Result<()> {
    let fixture = OperatorFixture::without_operators().await?;
    let proxy = ApiProxy::start(&fixture.control_plane).await?;
    for position in 0..MAX_POSITIONS {
        let hit = run(&fixture, &proxy, moment, position).await.with_context(|| {
            let written = proxy.observed(0, &writes());
            let last: Vec<_> =
                written.iter().rev().take(5).map(|write| format!("{} {}", write.verb, write.name)).collect();
            format!("the story failed with {moment:?} at write {position}; the last writes were {last:?}")
        })?;
        if !hit {
            println!("the story succeeded with {moment:?} at each of {position} writes");
            ensure!(position >= LEAST_POSITIONS, "the operator made only {position} writes");
            return Ok(());
        }
    }
    anyhow::bail!("the operator makes more than {MAX_POSITIONS} writes")
}

fn writes() -> Selector {
    Selector::verbs(WRITES).not_of("events")
}

/// Runs the story, and hits the first operator with a fault at the write with the number `position`. Returns whether
/// the operator reached this write.
async fn run(fixture: &OperatorFixture, proxy: &ApiProxy, moment: Moment, position: usize) -> Result<bool> {
    let fault = if moment == Moment::AfterWrite { Fault::HoldAnswer } else { Fault::HoldRequest };
    let guard = proxy.inject(writes().nth(position), fault);
    let behind_proxy = format!("https://{}", proxy.address());
    let mut first = start(fixture, "first", &behind_proxy)?;
    let progress = Progress::default();
    let mut second = None;
    let mut disturbed = false;
    {
        let disturb = async {
            while !guard.has_hit() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            disturbed = true;
            disturb(fixture, moment, &mut first, &progress, &mut second, guard).await
        };
        let story = story(fixture, &progress);
        tokio::pin!(disturb, story);
        // If the operator does not reach the write, `disturb` never ends, but `story` does.
        tokio::select! {
            told = &mut story => told?,
            ended = &mut disturb => {
                ended?;
                story.await?;
            }
        }
    }
    if moment == Moment::Frozen {
        first.must_be_running()?;
    }
    if let Some(second) = &mut second {
        second.must_be_running()?;
    }
    nothing_is_left(fixture).await?;
    Ok(disturbed)
}

async fn disturb(
    fixture: &OperatorFixture,
    moment: Moment,
    first: &mut Process,
    progress: &Progress,
    second: &mut Option<Process>,
    guard: FaultGuard,
) -> Result<()> {
    match moment {
        Moment::BeforeWrite | Moment::AfterWrite => first.kill(),
        Moment::Frozen => first.signal(Signal::SIGSTOP)?,
    }
    let step = progress.0.load(Ordering::Relaxed);
    *second = Some(start(fixture, "second", &fixture.control_plane.url())?);
    if moment == Moment::Frozen {
        while progress.0.load(Ordering::Relaxed) == step {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        first.signal(Signal::SIGCONT)?;
    }
    drop(guard);
    Ok(())
}

/// Starts an operator without leader election, so that two operators can lead at once.
fn start(fixture: &OperatorFixture, identity: &str, server: &str) -> Result<Process> {
    let directory = fixture.control_plane.directory();
    let kubeconfig = directory.join(format!("kubeconfig-{identity}"));
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "operator",
        "clusters": [{"name": "operator", "cluster": {
            "server": server, "certificate-authority": fixture.control_plane.certificates().file("ca.crt"),
        }}],
        "users": [{"name": "operator", "user": {"token": ADMIN}}],
        "contexts": [{"name": "operator", "context": {"cluster": "operator", "user": "operator"}}],
    });
    std::fs::write(&kubeconfig, text.to_string())?;
    let flags = [
        "operator".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--identity={identity}"),
        format!("--node-grace-period={}s", NODE_GRACE_PERIOD.as_secs()),
        "--namespace=default".to_owned(),
        "--no-leader-election".to_owned(),
        "--status-interval=100ms".to_owned(),
    ];
    Process::start(Artifacts::find()?.all(), None, &directory.join(format!("{identity}.log")), flags)
}

/// The operator carves a pool and refuses a rival pool. Nodes claim and release blocks. Then a node and the pools are
/// deleted. The remaining node must keep its block and its address all the time.
async fn story(fixture: &OperatorFixture, progress: &Progress) -> Result<()> {
    let next = || progress.0.fetch_add(1, Ordering::Relaxed);
    let spec = json!({"subnets": [{"ipv4": "10.60.0.0/29"}], "blockSizeBits": 1, "cooldownSeconds": 0});
    fixture.pool("crash", spec.clone()).await?;
    fixture.until_ready("crash").await?;
    next();
    fixture.pool("rival", spec).await?;
    wait_until("the pool has four blocks", RECONCILE_TIMEOUT, || async {
        let blocks = fixture.blocks_of("crash").await?.len();
        Ok(check(blocks == 4, || format!("{blocks} blocks")))
    })
    .await?;
    let refused =
        fixture.until_status("rival", "is not ready", RECONCILE_TIMEOUT, |status| !status.conditions.is_empty());
    ensure!(accepted(&refused.await?) == 0, "the operator accepted the same subnet for two pools");
    next();
    for (block, node) in [("crash-0", "goes"), ("crash-1", "releases"), ("crash-2", "lives")] {
        let uid = fixture.node(node).await?;
        fixture.claim(block, node, &uid).await?;
    }
    for (address, block, node) in
        [("10.60.0.0", "crash-0", "goes"), ("10.60.0.1", "crash-0", "goes"), ("10.60.0.4", "crash-2", "lives")]
    {
        fixture.create_assignment(address, block, node).await?;
    }
    fixture.release("crash-1").await?;
    fixture.until_free("crash-1", RECONCILE_TIMEOUT).await?;
    fixture
        .until_status("crash", "counts three addresses", RECONCILE_TIMEOUT, |status| {
            status.used == 3 && status.blocks.claimed == 2
        })
        .await?;
    next();
    fixture.taint_out_of_service("goes").await?;
    fixture.delete_node("goes").await?;
    fixture.until_free("crash-0", RECONCILE_TIMEOUT).await?;
    wait_until("the deleted node's assignments are gone", RECONCILE_TIMEOUT, || async {
        let left = fixture.assignments().list(&ListParams::default()).await?.items.len();
        Ok(check(left == 1, || format!("{left} assignments")))
    })
    .await?;
    next();
    ensure!(fixture.owner("crash-2").await? == "lives", "the living node lost its block");
    fixture.forget("10.60.0.4").await.context("the living node lost its assignment")?;
    fixture.release("crash-2").await?;
    for pool in ["rival", "crash"] {
        fixture.pools().delete(pool, &DeleteParams::default()).await?;
        fixture.until_gone(pool).await?;
    }
    for node in ["releases", "lives"] {
        fixture.delete_node(node).await?;
    }
    next();
    Ok(())
}

/// Waits until no pool, block or assignment is left.
async fn nothing_is_left(fixture: &OperatorFixture) -> Result<()> {
    let pools: Api<bobbin_crds::AddressPool> = fixture.pools();
    wait_until("no pool, block or assignment is left", RECONCILE_TIMEOUT * 2, || async {
        let everything = ListParams::default();
        let pools = pools.list(&everything).await?.items.len();
        let blocks = fixture.blocks().list(&everything).await?.items.len();
        let assignments = fixture.assignments().list(&everything).await?.items.len();
        Ok(check(pools + blocks + assignments == 0, || {
            format!("{pools} pools, {blocks} blocks and {assignments} assignments are left")
        }))
    })
    .await
}
