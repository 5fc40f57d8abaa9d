//! Many nodes claim blocks at once. The nodes run the agent's code, and the kube-apiserver is real.
//!
//! No two nodes get the same block. Each claim needs only a few API calls, even if the node has an old view of the
//! blocks.

#[path = "claims/carving.rs"]
mod carving;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bobbin_e2e::claiming_nodes::{ClaimFixture, carved_for, claim_at_once, pool};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use bobbin_node_agent::ClaimError;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// How long one test may take.
const TEST_TIMEOUT: Duration = Duration::from_mins(3);
/// How long the release of a block may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum number of API calls for one claim. A node first tries three blocks without a read. Then, up to three
/// times, it lists the blocks and tries one of them.
const MAX_CALLS_PER_CLAIM: usize = 9;
/// How long a node is without contact to the API server until it assumes an outage. The time is short, because the
/// nodes of this test have a short time scale.
const OUTAGE_DURATION: Duration = Duration::from_millis(200);
/// The number of nodes that claim a block at once.
const NODES: usize = 1000;

fn main() -> Result<ExitCode> {
    let suite = Suite::new(|| ClaimFixture::start(false))?.with_timeout(TEST_TIMEOUT);
    let mut tests = vec![
        suite.test("a thousand nodes claim at once without a duplicate and with few calls each", at_once),
        suite.test("a node with a stale view of the pool still claims the only free block", stale),
        suite.test("a claim that is the first response after an outage does not prove the block", after_outage),
        suite.test("a claim from a full pool fails as full", full),
        suite.test("a block released unused keeps its freeSince and can be claimed by another node", released_unused),
    ];
    tests.extend(carving::tests(&suite));
    Ok(suite.run(tests))
}

/// Removes the finalizer of a released block, as the operator does.
async fn remove_finalizer(fixture: &ClaimFixture, block: &str) -> Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    fixture.blocks().patch(block, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn at_once(fixture: &mut ClaimFixture) -> Result<()> {
    let carved = carved_for(NODES)?;
    fixture.carve("many", 80, 0..carved).await?;
    let nodes = fixture.nodes("many", NODES, &pool("many", 80, Some((0, carved - 1)))?).await?;
    let mark = fixture.audit.mark();
    let (claims, _) = claim_at_once(&nodes, "many").await;
    fixture.check_no_duplicate_block("many", &claims).await?;
    let calls = fixture.calls_of_claims(mark, "many", NODES).await?;
    let (p50, most) = (calls[NODES / 2], calls[NODES - 1]);
    ensure!(p50 == 1, "half of the claims took {p50} API calls or more, but one call must be enough");
    ensure!(most <= MAX_CALLS_PER_CLAIM, "one claim took {most} API calls");
    Ok(())
}

async fn stale(fixture: &mut ClaimFixture) -> Result<()> {
    fixture.carve("stale", 65, [1500]).await?;
    for (node, window) in [("stale-1", Some((0, 40))), ("stale-2", None)] {
        let node = fixture.node(node, &pool("stale", 65, window)?).await?;
        let block = node.claiming.claims.claim("stale", false).await?;
        ensure!(block.name == "stale-1500" && block.index == 1500, "claimed {}", block.name);
        ensure!(
            node.claiming.release(&block.name, RELEASE_TIMEOUT).await,
            "node {} did not release its block",
            block.name
        );
        remove_finalizer(fixture, &block.name).await?;
    }
    Ok(())
}

async fn after_outage(fixture: &mut ClaimFixture) -> Result<()> {
    fixture.carve("restored", 67, [0]).await?;
    let node = fixture.node("restored-0", &pool("restored", 67, Some((0, 0)))?).await?;
    node.claiming.lose_contact();
    let begun = Instant::now();
    wait_until("the loss of contact counts as an outage", Duration::from_secs(10), || async {
        Ok(check(begun.elapsed() > OUTAGE_DURATION, || format!("{:?}", begun.elapsed())))
    })
    .await?;
    let block = node.claiming.claims.claim("restored", false).await?;
    ensure!(
        !node.claiming.serves_without_listing(&block.name),
        "block {} serves ADDs before the node has read its assignments",
        block.name
    );
    Ok(())
}

async fn full(fixture: &mut ClaimFixture) -> Result<()> {
    fixture.carve("full", 66, [0, 1]).await?;
    let pool = pool("full", 66, Some((0, 1)))?;
    let mut holders = HashSet::new();
    for number in 0..2 {
        let node = fixture.node(&format!("full-{number}"), &pool).await?;
        holders.insert(node.claiming.claims.claim("full", false).await?.name);
    }
    ensure!(holders.len() == 2, "two nodes have the same block");
    let late = fixture.node("full-late", &pool).await?;
    let mark = fixture.audit.mark();
    let refused = late.claiming.claims.claim("full", false).await;
    ensure!(matches!(refused, Err(ClaimError::PoolFull(_))), "{refused:?}");
    let calls = wait_until("the audit log has the calls of the claim", Duration::from_secs(10), || async {
        let calls = fixture.audit.calls(mark, |entry| entry.user_agent == "full-late")?;
        Ok(if calls.iter().any(|call| call.verb == "list") {
            Poll::Ready(calls)
        } else {
            Poll::Pending(format!("{} calls", calls.len()))
        })
    })
    .await?;
    ensure!(calls.len() <= 3, "the node needed {} API calls to find that the pool is full", calls.len());
    Ok(())
}

async fn released_unused(fixture: &mut ClaimFixture) -> Result<()> {
    fixture.carve("back", 67, [3]).await?;
    let pool = pool("back", 67, Some((3, 3)))?;
    let first = fixture.node("back-1", &pool).await?;
    let block = first.claiming.claims.claim("back", false).await?;
    let stored = fixture.blocks().get(&block.name).await?;
    ensure!(stored.metadata.finalizers.as_deref() == Some(&["bobbin.dev/in-use".to_owned()][..]), "no finalizer");
    ensure!(
        stored.spec.node_uid.as_deref() == Some("uid-back-1") && stored.spec.free_since.is_none(),
        "{:?}",
        stored.spec
    );
    ensure!(
        first.claiming.release(&block.name, RELEASE_TIMEOUT).await,
        "the node did not release block {}",
        block.name
    );
    let stored = fixture.blocks().get(&block.name).await?;
    ensure!(stored.spec.node_name.is_none() && stored.spec.free_since.is_none(), "{:?}", stored.spec);
    // The block still has its finalizer, so the second node must read the block before it claims the block.
    let second = fixture.node("back-2", &pool).await?;
    let again = second.claiming.claims.claim("back", false).await?;
    ensure!(again.name == block.name, "claimed {}", again.name);
    Ok(())
}
