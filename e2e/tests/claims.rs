//! Many nodes claim blocks at once, by the agent's own code, against a real kube-apiserver: no block goes to two nodes, no claim needs
//! more than a few calls, and what a node knows may be as old as it likes.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bobbin_addressing::BlockRange;
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, name};
use bobbin_e2e::control_plane::{ADMIN, AuditLog, ControlPlane, Options, install_kinds};
use bobbin_e2e::until::{Look, until};
use bobbin_node_agent::{ClaimError, ClaimingNode, ExportFailed, Exports, HeldBlock};
use futures::future::{BoxFuture, join_all};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;
use tokio::runtime::Handle;

/// How long one test may take.
const TEST: Duration = Duration::from_mins(3);
/// The protocol's own waits are so much shorter here.
const SCALE: f64 = 0.01;
/// How long a release may take.
const RELEASE: Duration = Duration::from_secs(20);
/// The most calls that one claim may take: three unread blocks, then three times a list and a claim.
const MOST_CALLS: usize = 9;
/// Nodes that claim at once.
const NODES: usize = 1000;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    if arguments.list {
        return Ok(libtest_mimic::run(&arguments, tests(None)).exit_code());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let (control_plane, world) = runtime.block_on(World::start())?;
    let conclusion = libtest_mimic::run(&arguments, tests(Some(&(runtime.handle().clone(), world))));
    drop(control_plane);
    Ok(conclusion.exit_code())
}

fn tests(world: Option<&(Handle, World)>) -> Vec<Trial> {
    let test = |name: &str, run: fn(World) -> BoxFuture<'static, Result<()>>| {
        let world = world.cloned();
        Trial::test(name, move || {
            let (runtime, world) = world.ok_or_else(|| Failed::from("no control plane was started"))?;
            let outcome = runtime.block_on(async { tokio::time::timeout(TEST, run(world)).await });
            outcome
                .map_err(|_| format!("not done within {} s", TEST.as_secs()))?
                .map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    vec![
        test("a_thousand_nodes_claim_at_once_without_a_duplicate_and_with_few_calls_each", |world| {
            Box::pin(at_once(world))
        }),
        test("a_view_that_knows_nothing_right_still_claims_the_one_free_block", |world| Box::pin(stale(world))),
        test("a_full_pool_is_said_to_be_full", |world| Box::pin(full(world))),
        test("a_block_that_goes_back_unused_keeps_its_free_since_and_can_be_claimed_by_another", |world| {
            Box::pin(given_back(world))
        }),
    ]
}

/// A control plane with the kinds installed and nobody at work.
#[derive(Clone)]
struct World {
    client: kube::Client,
    kubeconfig: PathBuf,
    audit: AuditLog,
    scratch: Arc<tempfile::TempDir>,
}

/// One node's claiming part.
struct Node {
    name: String,
    claiming: ClaimingNode,
}

/// No kernel: the routes are another test's.
struct Nowhere;

impl Exports for Nowhere {
    fn export(&self, _: BlockRange) -> BoxFuture<'_, Result<(), ExportFailed>> {
        Box::pin(async { Ok(()) })
    }

    fn withdraw(&self, _: BlockRange) -> BoxFuture<'_, Result<(), ExportFailed>> {
        Box::pin(async { Ok(()) })
    }
}

impl World {
    async fn start() -> Result<(ControlPlane, World)> {
        let options = Options { audit: true, ..Options::default() };
        let control_plane = ControlPlane::start(options).await?;
        let client = control_plane.client().await?;
        install_kinds(&client).await?;
        let kubeconfig = control_plane.kubeconfig_for(ADMIN)?;
        let audit = control_plane.audit();
        let world = World { client, kubeconfig, audit, scratch: Arc::new(tempfile::tempdir()?) };
        Ok((control_plane, world))
    }

    /// Carves free blocks of a pool, as the operator would.
    async fn carve(&self, pool: &str, second_octet: u8, indices: impl IntoIterator<Item = i64>) -> Result<()> {
        let blocks = self.blocks();
        let made = indices.into_iter().map(|index| {
            let blocks = blocks.clone();
            let spec = AddressBlockSpec {
                pool_name: pool.to_owned(),
                index,
                ipv4: Some(format!(
                    "10.{}.{}.{}/27",
                    i64::from(second_octet) + index / 2048,
                    index / 8 % 256,
                    index % 8 * 32
                )),
                ..AddressBlockSpec::default()
            };
            let block = AddressBlock::new(&name::block(pool, index), spec);
            async move { blocks.create(&PostParams::default(), &block).await.map(drop) }
        });
        stream::iter(made).buffer_unordered(16).try_collect().await.map_err(Into::into)
    }

    fn blocks(&self) -> Api<AddressBlock> {
        Api::all(self.client.clone())
    }

    /// What the operator does with a block that went back.
    async fn remove_finalizer(&self, block: &str) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.blocks().patch(block, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// A node whose agent knows what an earlier run of it kept: its Node, and the pool with this window of free blocks.
    async fn node(&self, node: &str, pool: &AddressPool) -> Result<Node> {
        let directory =
            self.scratch.path().join(format!("{node}-{}", pool.metadata.name.as_deref().unwrap_or_default()));
        std::fs::create_dir_all(&directory)?;
        let facts =
            json!({"name": node, "uid": format!("uid-{node}"), "ipv4": "192.0.2.1", "ipv6": null, "labels": {}});
        let kept = json!({"node": facts, "pods": [], "pools": [pool], "namespaces": []});
        std::fs::write(directory.join("cluster.json"), serde_json::to_vec(&kept)?)?;
        let clients = bobbin_apiserver::connect(Some(&self.kubeconfig), node).await?;
        // An agent that runs has its connection: that is not a claim's to make.
        clients.requests.apiserver_version().await?;
        let claiming = ClaimingNode::start(&clients, node, &directory, Arc::new(Nowhere), SCALE)?;
        Ok(Node { name: node.to_owned(), claiming })
    }
}

/// A pool that is ready and says that its free blocks lie in the window.
fn pool(name: &str, second_octet: u8, window: Option<(i64, i64)>) -> Result<AddressPool> {
    let status = json!({
        "blocks": {"total": 2048, "claimed": 0, "free": 2048},
        "freeWindow": window.map(|(first, last)| json!({"first": first, "last": last, "free": last - first + 1})),
        "conditions": [{"type": "Ready", "status": "True", "reason": "Carved", "message": "", "lastTransitionTime": "2026-11-21T00:00:00Z"}]
    });
    Ok(serde_json::from_value(json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name},
        "spec": {"subnets": [{"ipv4": format!("10.{second_octet}.0.0/16")}]}, "status": status
    }))?)
}

async fn at_once(world: World) -> Result<()> {
    let carved = i64::try_from(NODES)? * 6 + 8;
    world.carve("many", 80, 0..carved).await?;
    let pool = pool("many", 80, Some((0, carved - 1)))?;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(world.node(&format!("many-{number}"), &pool).await?);
    }
    let mark = world.audit.mark();
    let start = Instant::now();
    let claimed = join_all(
        nodes
            .iter()
            .map(|node| async move { (node, node.claiming.claims.claim("many", false).await, start.elapsed()) }),
    )
    .await;
    let whole = start.elapsed();

    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (node, outcome, _) in &claimed {
        let block: &HeldBlock = outcome.as_ref().map_err(|error| anyhow::anyhow!("{}: {error}", node.name))?;
        if let Some(other) = taken.insert(block.name.clone(), &node.name) {
            anyhow::bail!("{} is of {other} and of {}", block.name, node.name);
        }
        let held: Vec<String> = node.claiming.ledger.blocks().into_iter().map(|block| block.held.name).collect();
        ensure!(held == [block.name.clone()], "the ledger of {} has {held:?}", node.name);
    }
    let stored = world.blocks().list(&ListParams::default().fields("spec.poolName=many")).await?;
    for block in stored {
        let name = block.metadata.name.unwrap_or_default();
        let owner = taken.get(&name).copied();
        ensure!(block.spec.node_name.as_deref() == owner, "{name} is of {:?}, not of {owner:?}", block.spec.node_name);
    }

    let calls = until("each claim's calls are in the audit log", Duration::from_secs(20), || async {
        let entries = world
            .audit
            .calls(mark, |entry| entry.user_agent.starts_with("many-") && entry.resource() == "addressblocks")?;
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for entry in &entries {
            *calls.entry(entry.user_agent.clone()).or_default() += 1;
        }

        let writes = entries.iter().filter(|entry| matches!(entry.verb.as_str(), "patch" | "update"));
        let won = writes.filter(|entry| entry.code() == 200).count();
        Ok(if won == NODES { Look::Yes(calls) } else { Look::NotYet(format!("{won} of {NODES} claims")) })
    })
    .await?;
    let mut counts: Vec<usize> = calls.values().copied().collect();
    counts.sort_unstable();
    let (p50, p99, most) = (counts[NODES / 2], counts[NODES * 99 / 100], counts[NODES - 1]);
    let over = counts.iter().filter(|count| **count > 3).count();
    let mut times: Vec<Duration> = claimed.iter().map(|(_, _, time)| *time).collect();
    times.sort_unstable();
    let (half, slow) = (times[NODES / 2], times[NODES * 99 / 100]);
    println!(
        "{NODES} claims in {} ms: p50 {} ms, p99 {} ms; calls p50 {p50}, p99 {p99}, most {most}, more than three: {over}",
        whole.as_millis(),
        half.as_millis(),
        slow.as_millis()
    );
    ensure!(p50 == 1, "half of the claims took more than one call: p50 {p50}");
    ensure!(most <= MOST_CALLS, "a claim took {most} calls");
    Ok(())
}

async fn stale(world: World) -> Result<()> {
    world.carve("stale", 65, [1500]).await?;
    for (node, window) in [("stale-1", Some((0, 40))), ("stale-2", None)] {
        let node = world.node(node, &pool("stale", 65, window)?).await?;
        let block = node.claiming.claims.claim("stale", false).await?;
        ensure!(block.name == "stale-1500" && block.index == 1500, "claimed {}", block.name);
        ensure!(node.claiming.release(&block.name, RELEASE).await, "{} did not go back", block.name);
        world.remove_finalizer(&block.name).await?;
    }
    Ok(())
}

async fn full(world: World) -> Result<()> {
    world.carve("full", 66, [0, 1]).await?;
    let pool = pool("full", 66, Some((0, 1)))?;
    let mut holders = HashSet::new();
    for number in 0..2 {
        let node = world.node(&format!("full-{number}"), &pool).await?;
        holders.insert(node.claiming.claims.claim("full", false).await?.name);
    }
    ensure!(holders.len() == 2, "two nodes have the same block");
    let late = world.node("full-late", &pool).await?;
    let mark = world.audit.mark();
    let refused = late.claiming.claims.claim("full", false).await;
    ensure!(matches!(refused, Err(ClaimError::PoolFull(_))), "{refused:?}");
    let calls = until("the calls are in the audit log", Duration::from_secs(10), || async {
        let calls = world.audit.calls(mark, |entry| entry.user_agent == "full-late")?;
        Ok(if calls.iter().any(|call| call.verb == "list") {
            Look::Yes(calls)
        } else {
            Look::NotYet(format!("{} calls", calls.len()))
        })
    })
    .await?;
    ensure!(calls.len() <= 3, "to find a pool full took {} calls", calls.len());
    Ok(())
}

async fn given_back(world: World) -> Result<()> {
    world.carve("back", 67, [3]).await?;
    let pool = pool("back", 67, Some((3, 3)))?;
    let first = world.node("back-1", &pool).await?;
    let block = first.claiming.claims.claim("back", false).await?;
    let stored = world.blocks().get(&block.name).await?;
    ensure!(stored.metadata.finalizers.as_deref() == Some(&["bobbin.dev/in-use".to_owned()][..]), "no finalizer");
    ensure!(
        stored.spec.node_uid.as_deref() == Some("uid-back-1") && stored.spec.free_since.is_none(),
        "{:?}",
        stored.spec
    );
    ensure!(first.claiming.release(&block.name, RELEASE).await, "{} did not go back", block.name);
    let stored = world.blocks().get(&block.name).await?;
    ensure!(stored.spec.node_name.is_none() && stored.spec.free_since.is_none(), "{:?}", stored.spec);
    // Nobody took its finalizer off: the next node claims it by a read.
    let second = world.node("back-2", &pool).await?;
    let again = second.claiming.claims.claim("back", false).await?;
    ensure!(again.name == block.name, "claimed {}", again.name);
    Ok(())
}
