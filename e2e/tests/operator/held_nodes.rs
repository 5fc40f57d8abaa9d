//! Many Nodes are deleted together, as by a mistaken command. Their machines may still run, so the operator releases none of
//! their blocks until an administrator confirms the deletion. Then it releases them slowly.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{NAMESPACE, NODE_GRACE_PERIOD, OperatorFixture, RECONCILE_TIMEOUT};

/// The nodes of the cluster; node `h<number>` has block `held-<number>` and one address of it.
const NODES: usize = 12;
/// How long the operator may take after a grace period has ended: it reads the confirmation every five seconds.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test(
            "a third of twelve Nodes deleted together keep their blocks until the deletion is confirmed, also across a restart",
            confirmed,
        ),
        suite.test("Nodes deleted together are released slowly when nobody confirms the deletion for the hold time", expired),
    ]
}

async fn with_twelve_nodes() -> Result<OperatorFixture> {
    let fixture = OperatorFixture::without_operators().await?;
    let stop = CancellationToken::new();
    fixture.operator("carves", &["--no-leader-election"], stop.clone())?;
    for number in 0..NODES {
        fixture.node(&format!("h{number}")).await?;
    }
    fixture.pool("held", json!({"subnets": [{"ipv4": "10.62.0.0/16"}]})).await?;
    fixture.until_ready("held").await?;
    for number in 0..NODES {
        let (node, block) = (format!("h{number}"), format!("held-{number}"));
        fixture.claim(&block, &node, "uid").await?;
        fixture.create_assignment(&format!("10.62.{}.{}", number / 8, number % 8 * 32 + 1), &block, &node).await?;
    }
    stop.cancel();
    Ok(fixture)
}

/// Fails unless each of these nodes has its block and its address.
async fn must_own(fixture: &OperatorFixture, nodes: &[usize]) -> Result<()> {
    for number in nodes {
        let owner = fixture.owner(&format!("held-{number}")).await?;
        ensure!(owner == format!("h{number}"), "held-{number} was released, although the deletion is not confirmed");
        let address = format!("10.62.{}.{}", number / 8, number % 8 * 32 + 1);
        ensure!(fixture.assignments().get_opt(&address).await?.is_some(), "{address} has no assignment any more");
    }
    Ok(())
}

/// Waits for the event about the hold, and returns the time that its command confirms.
async fn confirmation(fixture: &OperatorFixture) -> Result<String> {
    wait_until("an event names the command that confirms the deletion", RECONCILE_TIMEOUT, || async {
        let events: Api<Event> = Api::namespaced(fixture.client(), NAMESPACE);
        let events = events.list(&ListParams::default()).await?.items;
        let notes: Vec<String> = events
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("ReclaimHeld"))
            .filter_map(|event| event.note)
            .collect();
        let command = "kubectl -n bobbin-system annotate configmap bobbin-deleted-nodes bobbin.dev/confirm-deletion=";
        let time = notes
            .iter()
            .filter(|note| note.contains("4 deleted nodes keep their blocks until"))
            .find_map(|note| note.split_once(command)?.1.strip_suffix(" --overwrite").map(ToOwned::to_owned));
        Ok(time.map_or_else(|| Poll::Pending(format!("{notes:?}")), Poll::Ready))
    })
    .await
}

/// Waits until the blocks are free. Fails if two were released within one grace period.
async fn released_slowly(fixture: &OperatorFixture, nodes: &[usize]) -> Result<()> {
    let mut times = Vec::new();
    for number in nodes {
        let grace_periods = u32::try_from(nodes.len())?;
        let within = (NODE_GRACE_PERIOD + RELEASE_TIMEOUT) * grace_periods;
        let block = fixture.until_free(&format!("held-{number}"), within).await?;
        times.push(block.spec.free_since.context("a released block has a freeSince")?.0);
    }
    times.sort();
    // The operator keeps the time of a release in whole seconds.
    let shortest = NODE_GRACE_PERIOD.checked_sub(Duration::from_secs(1)).context("the grace period is longer")?;
    let is_slow = |pair: &[Timestamp]| pair[1] >= pair[0] + shortest;
    ensure!(times.windows(2).all(is_slow), "two nodes were released within one grace period: {times:?}");
    Ok(())
}

async fn confirmed(_: &mut OperatorFixture) -> Result<()> {
    let fixture = with_twelve_nodes().await?;
    let flags = ["--no-leader-election", "--reclaim-hold=24h"];
    let first = CancellationToken::new();
    fixture.operator("first", &flags, first.clone())?;
    fixture.until_ready("held").await?;
    let deleted = [0, 1, 2, 3];
    for number in deleted {
        fixture.delete_node_unannounced(&format!("h{number}")).await?;
    }
    for number in [4, 5] {
        fixture.delete_node(&format!("h{number}")).await?;
    }
    // The cordoned nodes were deleted last, so the grace periods of the others have ended when their blocks are free.
    for number in [4, 5] {
        fixture.until_free(&format!("held-{number}"), NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
    }
    must_own(&fixture, &deleted).await?;
    let time = confirmation(&fixture).await?;

    first.cancel();
    let second = CancellationToken::new();
    fixture.operator("second", &flags, second.clone())?;
    wait_until("the second operator has carved", RECONCILE_TIMEOUT, || async {
        let carved = fixture.pool("second", json!({"subnets": [{"ipv4": "10.63.0.0/24"}]})).await;
        Ok(check(carved.is_ok(), || format!("{carved:?}")))
    })
    .await?;
    fixture.until_ready("second").await?;
    fixture.delete_node("h6").await?;
    fixture.until_free("held-6", NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
    must_own(&fixture, &deleted).await?;

    let config_maps: Api<ConfigMap> = Api::namespaced(fixture.client(), NAMESPACE);
    let annotation = Patch::Merge(json!({"metadata": {"annotations": {"bobbin.dev/confirm-deletion": time}}}));
    config_maps.patch("bobbin-deleted-nodes", &PatchParams::default(), &annotation).await?;
    released_slowly(&fixture, &deleted).await?;
    must_own(&fixture, &[7, 8, 9, 10, 11]).await?;
    wait_until("the ConfigMap has no entry", RECONCILE_TIMEOUT, || async {
        let data = config_maps.get("bobbin-deleted-nodes").await?.data.unwrap_or_default();
        Ok(check(data.is_empty(), || format!("{data:?}")))
    })
    .await?;
    second.cancel();
    Ok(())
}

async fn expired(_: &mut OperatorFixture) -> Result<()> {
    let fixture = with_twelve_nodes().await?;
    let stop = CancellationToken::new();
    fixture.operator("waits", &["--no-leader-election", "--reclaim-hold=15s"], stop.clone())?;
    fixture.until_ready("held").await?;
    let deleted_at = Timestamp::now();
    for number in [0, 1, 2] {
        fixture.delete_node_unannounced(&format!("h{number}")).await?;
    }
    released_slowly(&fixture, &[0, 1, 2]).await?;
    for number in [0, 1, 2] {
        let block = fixture.blocks().get(&format!("held-{number}")).await?;
        let free_since = block.spec.free_since.context("a released block has a freeSince")?.0;
        ensure!(
            free_since >= deleted_at + Duration::from_secs(14),
            "held-{number} was released before the hold time ended"
        );
    }
    stop.cancel();
    Ok(())
}
