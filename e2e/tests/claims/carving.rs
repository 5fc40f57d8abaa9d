//! The operator creates new free blocks while nodes claim blocks, and deletes free blocks that no node needs. The tests
//! use the real operator, API server and claim code of the agent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bobbin_e2e::claiming_nodes::{ClaimFixture, ClaimResult, ClaimingCluster, ClaimingNode, pool};
use bobbin_e2e::control_plane::Entry;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use bobbin_node_agent::ClaimError;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use serde_json::json;

/// How long the operator may take for work that it does at once.
const RECONCILE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the operator may take to delete surplus blocks. It first counts the demand for two periods of 30 s.
const SURPLUS_TIMEOUT: Duration = Duration::from_secs(150);
/// How long a node may wait for a block. The machine may be busy, so this is longer than the ADD timeout. A benchmark
/// compares the time with the ADD timeout.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(150);
/// The number of free blocks that the operator keeps in a pool without demand.
const FLOOR: usize = 8;
/// How long the test counts the operator's requests while nothing changes.
const IDLE_PERIOD: Duration = Duration::from_secs(20);

pub fn tests(suite: &Suite<ClaimFixture>) -> Vec<Trial> {
    vec![
        suite.test("the free blocks of a pool follow the demand of the nodes that it admits", follow_demand),
        suite.test("idle blocks depend on demand, not on nodes times pools", many_pools),
        suite.test("a surplus block that a node claims at the same time is not deleted", claimed_surplus),
        suite.test("three hundred nodes that claim at once from a new pool get blocks with few calls each", new_pool),
    ]
}

/// Counts the blocks of a pool that no node has claimed.
async fn free_blocks(fixture: &ClaimFixture, pool: &str) -> Result<usize> {
    let params = ListParams::default().fields(&format!("spec.poolName={pool},spec.nodeName="));
    Ok(fixture.blocks().list(&params).await?.items.len())
}

async fn until_free(fixture: &ClaimFixture, pool: &str, count: usize, within: Duration) -> Result<()> {
    wait_until(&format!("pool {pool} has {count} free blocks"), within, || async {
        let free = free_blocks(fixture, pool).await?;
        Ok(check(free == count, || format!("the pool has {free} free blocks")))
    })
    .await
}

async fn follow_demand(_: &mut ClaimFixture) -> Result<()> {
    let cluster = ClaimingCluster::start(false).await?;
    let fixture = &cluster.fixture;
    cluster.create_nodes("a", 30, &json!({"zone": "a"})).await?;
    cluster.create_nodes("b", 10, &json!({"zone": "b"})).await?;
    let zone = |zone: &str| json!({"matchLabels": {"zone": zone}});
    cluster.create_pool("team", json!({"subnets": [{"ipv4": "10.100.0.0/16"}]})).await?;
    cluster.create_pool("huge", json!({"subnets": [{"ipv6": "fd00:100::/64"}], "nodeSelector": zone("a")})).await?;
    cluster.create_pool("default", json!({"subnets": [{"ipv4": "10.101.0.0/16"}], "nodeSelector": zone("b")})).await?;
    until_free(fixture, "team", FLOOR, RECONCILE_TIMEOUT).await?;
    until_free(fixture, "huge", FLOOR, RECONCILE_TIMEOUT).await?;
    until_free(fixture, "default", 60, RECONCILE_TIMEOUT).await?;
    // The pool `default` now admits an eleventh node, so the operator creates more free blocks.
    let nodes: Api<Node> = Api::all(fixture.client.clone());
    let moved = Patch::Merge(json!({"metadata": {"labels": {"zone": "b"}}}));
    nodes.patch("a-0", &PatchParams::default(), &moved).await?;
    until_free(fixture, "default", 66, RECONCILE_TIMEOUT).await?;
    let status = fixture.pools().get("team").await?;
    let claiming = fixture.nodes("a", 30, &status).await?;
    let _watch = cluster.watch_pools(&claiming);
    let served = join_all(claiming.iter().map(|node| node.claiming.wait_for_block("team", CLAIM_TIMEOUT))).await;
    ensure!(served.iter().all(|served| *served), "{served:?}");
    let ahead = free_blocks(fixture, "team").await?;
    ensure!(ahead >= FLOOR, "the pool has only {ahead} free blocks after the claims");
    until_free(fixture, "team", FLOOR, SURPLUS_TIMEOUT).await
}

/// Checks how many blocks of many pools are idle. Bobbin supports 1000 nodes and 250 pools. If ten of these pools are
/// busy, at most 8000 blocks may be idle. The test has only 100 nodes and 50 pools, ten of them busy. It allows eight
/// idle blocks for each pool. The number of further blocks that it allows for a busy pool is half the number of nodes.
async fn many_pools(_: &mut ClaimFixture) -> Result<()> {
    const NODES: usize = 100;
    const POOLS: usize = 50;
    const BUSY: usize = 10;
    const CLAIMING: usize = 40;
    const MAX_IDLE: usize = FLOOR * POOLS + BUSY * NODES / 2;
    let cluster = ClaimingCluster::start(false).await?;
    let fixture = &cluster.fixture;
    cluster.create_nodes("many", NODES, &json!({})).await?;
    let nodes = fixture.nodes("many", CLAIMING, &pool("absent", 103, None)?).await?;
    let _watch = cluster.watch_pools(&nodes);
    let names: Vec<String> = (0..POOLS).map(|number| format!("pool-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        cluster.create_pool(name, json!({"subnets": [{"ipv4": format!("10.{}.0.0/16", 110 + number)}]})).await?;
    }
    let expected = FLOOR * POOLS;
    wait_until("each pool has its floor of free blocks", RECONCILE_TIMEOUT, || async {
        let idle = idle_blocks(fixture).await?.values().sum::<usize>();
        Ok(check(idle == expected, || format!("there are {idle} of {expected} idle blocks")))
    })
    .await?;
    let claims = names[..BUSY].iter().flat_map(|name| nodes.iter().map(move |node| (node, name)));
    let claims = join_all(claims.map(|(node, name)| node.claiming.wait_for_block(name, CLAIM_TIMEOUT)));
    let check_idle = |idle: &BTreeMap<String, usize>| {
        let quiet = names[BUSY..].iter().map(|name| idle.get(name).copied().unwrap_or_default());
        ensure!(
            quiet.clone().all(|count| count == FLOOR),
            "a pool without claims no longer has {FLOOR} idle blocks: {idle:?}"
        );
        let sum = idle.values().sum::<usize>();
        ensure!(sum <= MAX_IDLE, "the pools have too many idle blocks: {sum} in total, by pool {idle:?}");
        Ok(())
    };
    let served = tokio::select! {
        served = claims => served,
        failed = watch_idle(fixture, check_idle) => return failed,
    };
    let failed = served.iter().filter(|served| !**served).count();
    ensure!(failed == 0, "{failed} of {} claims got no block", served.len());
    check_idle(&idle_blocks(fixture).await?)?;
    until_operator_is_idle(fixture).await
}

/// Waits until the operator is idle. It is idle when it has sent at most one request a second for a whole
/// [`IDLE_PERIOD`], not counting its watches.
async fn until_operator_is_idle(fixture: &ClaimFixture) -> Result<()> {
    let is_request =
        |entry: &Entry| entry.user_agent.starts_with("bobbin-operator") && (entry.is_write() || entry.is_read());
    let (mut mark, mut began) = (fixture.audit.mark(), Instant::now());
    wait_until("the operator is idle", SURPLUS_TIMEOUT, || {
        let seen = if began.elapsed() < IDLE_PERIOD {
            Ok(Poll::Pending("the idle period has not ended".to_owned()))
        } else {
            let seen = fixture.audit.calls(mark, is_request).map(|calls| {
                let text = || format!("{} requests in {} s", calls.len(), began.elapsed().as_secs());
                check(calls.len() as u64 <= began.elapsed().as_secs(), text)
            });
            (mark, began) = (fixture.audit.mark(), Instant::now());
            seen
        };
        std::future::ready(seen)
    })
    .await
}

/// Counts the blocks of each pool that no node has claimed, and checks these numbers at each change of a block. Ends
/// when a check fails.
async fn watch_idle(fixture: &ClaimFixture, check: impl Fn(&BTreeMap<String, usize>) -> Result<()>) -> Result<()> {
    let mut events = watcher::watcher(fixture.blocks(), watcher::Config::default()).boxed();
    let (mut free, mut idle) = (HashMap::<String, bool>::new(), BTreeMap::<String, usize>::new());
    let mut is_listed = false;
    while let Some(event) = events.try_next().await? {
        let (block, is_free) = match event {
            Event::Init => {
                (free, idle, is_listed) = (HashMap::new(), BTreeMap::new(), false);
                continue;
            }
            Event::InitDone => {
                is_listed = true;
                continue;
            }
            Event::InitApply(block) | Event::Apply(block) => {
                let is_free = block.spec.node_name.is_none();
                (block, is_free)
            }
            Event::Delete(block) => (block, false),
        };
        let was_free = free.insert(block.name_any(), is_free).unwrap_or_default();
        let count = idle.entry(block.spec.pool_name).or_default();
        *count = *count + usize::from(is_free) - usize::from(was_free);
        if is_listed {
            check(&idle)?;
        }
    }
    bail!("the watch of the blocks ended")
}

/// Counts the blocks of each pool that no node has claimed.
async fn idle_blocks(fixture: &ClaimFixture) -> Result<BTreeMap<String, usize>> {
    let mut idle = BTreeMap::new();
    for block in fixture.blocks().list(&ListParams::default().fields("spec.nodeName=")).await? {
        *idle.entry(block.spec.pool_name).or_default() += 1;
    }
    Ok(idle)
}

async fn claimed_surplus(_: &mut ClaimFixture) -> Result<()> {
    const SURPLUS: i64 = 600;
    const CLAIMS: usize = 200;
    let cluster = ClaimingCluster::start(false).await?;
    let fixture = &cluster.fixture;
    cluster.create_pool("surplus", json!({"subnets": [{"ipv4": "10.102.0.0/16"}]})).await?;
    until_free(fixture, "surplus", FLOOR, RECONCILE_TIMEOUT).await?;
    fixture.carve("surplus", 102, i64::try_from(FLOOR)?..SURPLUS).await?;
    let nodes = fixture.nodes("surplus", CLAIMS, &pool("surplus", 102, Some((0, SURPLUS - 1)))?).await?;
    wait_until("the operator deletes surplus blocks", SURPLUS_TIMEOUT, || async {
        let free = free_blocks(fixture, "surplus").await?;
        Ok(check(free < usize::try_from(SURPLUS)? - 10, || format!("the pool has {free} free blocks")))
    })
    .await?;
    let claims = join_all(nodes.iter().map(|node| claim_with_retries(node, "surplus"))).await;
    fixture.check_no_duplicate_block("surplus", &claims).await?;
    until_free(fixture, "surplus", FLOOR, SURPLUS_TIMEOUT).await?;
    fixture.check_no_duplicate_block("surplus", &claims).await?;
    for claim in &claims {
        let name = claim.outcome.as_ref().map(|block| block.name.clone()).unwrap_or_default();
        let block = fixture.blocks().get(&name).await.context(name)?;
        ensure!(block.metadata.deletion_timestamp.is_none(), "a claimed block was deleted: {:?}", block.metadata);
    }
    Ok(())
}

/// Claims a block. Repeats the claim while other nodes are faster, or while the pool has no free block yet.
async fn claim_with_retries<'a>(node: &'a ClaimingNode, pool: &str) -> ClaimResult<'a> {
    let begun = Instant::now();
    loop {
        let outcome = node.claiming.claims.claim(pool, false).await;
        let is_contended = matches!(outcome, Err(ClaimError::Contended(_) | ClaimError::PoolFull(_)));
        if !is_contended || begun.elapsed() > CLAIM_TIMEOUT {
            return ClaimResult { node, outcome };
        }
    }
}

/// The names of the claimed blocks of a pool, by their owner.
async fn owned_blocks(fixture: &ClaimFixture, pool: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut owned = BTreeMap::<String, BTreeSet<String>>::new();
    for block in fixture.blocks().list(&ListParams::default().fields(&format!("spec.poolName={pool}"))).await? {
        if let Some(node) = block.spec.node_name.clone() {
            owned.entry(node).or_default().insert(block.name_any());
        }
    }
    Ok(owned)
}

async fn new_pool(_: &mut ClaimFixture) -> Result<()> {
    const NODES: usize = 300;
    /// The largest allowed mean number of API calls for a node's claim. A node tries about once for each new status of
    /// the pool. A few tries are enough, because each status shows several times as many free blocks as the status
    /// before.
    const MAX_MEAN_CALLS: usize = 8;
    const MAX_CALLS: usize = 40;
    let cluster = ClaimingCluster::start(false).await?;
    let fixture = &cluster.fixture;
    cluster.create_nodes("new", NODES, &json!({})).await?;
    let nodes = fixture.nodes("new", NODES, &pool("absent", 103, None)?).await?;
    let _watch = cluster.watch_pools(&nodes);
    let mark = fixture.audit.mark();
    cluster.create_pool("new", json!({"subnets": [{"ipv4": "10.104.0.0/16"}]})).await?;
    let served = join_all(nodes.iter().map(|node| node.claiming.wait_for_block("new", CLAIM_TIMEOUT))).await;
    let failed = served.iter().filter(|served| !**served).count();
    ensure!(failed == 0, "{failed} of {NODES} nodes got no block");
    wait_until("each node knows all blocks that the API server says it owns", RECONCILE_TIMEOUT, || async {
        let owned = owned_blocks(fixture, "new").await?;
        let known = nodes.iter().map(|node| {
            let held = node.claiming.node_state.blocks().into_iter().map(|block| block.held.name);
            (node.name.clone(), held.collect::<BTreeSet<_>>())
        });
        let unknown: Vec<_> = known.filter(|(node, held)| owned.get(node) != Some(held)).collect();
        Ok(check(unknown.is_empty(), || format!("the state of these nodes differs from the API server: {unknown:?}")))
    })
    .await?;
    // The outcome of a node's first claim may have been unknown. Then the node may have claimed a second block before it
    // found that it owns the first one.
    let blocks: usize = owned_blocks(fixture, "new").await?.values().map(BTreeSet::len).sum();
    ensure!(blocks <= NODES + NODES / 100, "{NODES} nodes own {blocks} blocks");
    let calls = fixture.calls_of_claims(mark, "new", NODES).await?;
    let (sum, most) = (calls.iter().sum::<usize>(), calls.last().copied().unwrap_or_default());
    println!("{NODES} nodes made {sum} API calls in total to claim a first block; one node made {most} of them");
    ensure!(
        sum <= MAX_MEAN_CALLS * NODES && most <= MAX_CALLS,
        "the nodes made too many API calls: {sum} in total, and {most} by one node"
    );
    Ok(())
}
