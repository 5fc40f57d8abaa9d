//! Many Nodes are deleted together, for example by a mistaken command. Their machines may still be running, so the
//! operator keeps their blocks until an administrator confirms the deletion. After the confirmation it releases the
//! blocks slowly.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::ADMIN;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use xtask::artifacts::Artifacts;

use crate::fixture::{NAMESPACE, NODE_GRACE_PERIOD, OperatorFixture, RECONCILE_TIMEOUT};

/// The number of nodes in the cluster. Node `h<number>` owns block `held-<number>` and uses one address of this block.
const NODES: usize = 12;
/// How long the operator may take to release blocks after a grace period has ended. It reads the confirmation every
/// five seconds.
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

/// Starts an operator and waits until it has carved a new pool. By then the operator has seen all Nodes and knows which
/// of them are cordoned. If a Node were deleted before that, the operator could not know whether it was cordoned.
async fn observing_operator(
    fixture: &OperatorFixture,
    name: &str,
    subnet: &str,
    flags: &[&str],
) -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    fixture.operator(name, flags, stop.clone())?;
    wait_until("the API server accepts a new pool", RECONCILE_TIMEOUT, || async {
        let created = fixture.pool(name, json!({"subnets": [{"ipv4": subnet}]})).await;
        Ok(check(created.is_ok(), || format!("{created:?}")))
    })
    .await?;
    fixture.until_ready(name).await?;
    Ok(stop)
}

/// Fails if one of these nodes has lost its block or its address.
async fn must_own(fixture: &OperatorFixture, nodes: &[usize]) -> Result<()> {
    for number in nodes {
        let owner = fixture.owner(&format!("held-{number}")).await?;
        ensure!(
            owner == format!("h{number}"),
            "the operator released held-{number}, although nobody has confirmed the deletion"
        );
        let address = format!("10.62.{}.{}", number / 8, number % 8 * 32 + 1);
        ensure!(fixture.assignments().get_opt(&address).await?.is_some(), "the assignment of {address} is gone");
    }
    Ok(())
}

/// Waits for the event that names the confirmation command. Returns the time in this command.
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

/// Waits until the nodes' blocks are free. Fails if the operator released the blocks of two nodes within one grace
/// period.
async fn released_slowly(fixture: &OperatorFixture, nodes: &[usize]) -> Result<()> {
    let mut times = Vec::new();
    for number in nodes {
        let grace_periods = u32::try_from(nodes.len())?;
        let within = (NODE_GRACE_PERIOD + RELEASE_TIMEOUT) * grace_periods;
        let block = fixture.until_free(&format!("held-{number}"), within).await?;
        times.push(block.spec.free_since.context("the released block has no freeSince")?.0);
    }
    times.sort();
    // Allow one second less, because the operator saves the time of a release in whole seconds.
    let shortest =
        NODE_GRACE_PERIOD.checked_sub(Duration::from_secs(1)).context("the grace period is shorter than a second")?;
    let is_slow = |pair: &[Timestamp]| pair[1] >= pair[0] + shortest;
    ensure!(times.windows(2).all(is_slow), "the operator released two nodes within one grace period: {times:?}");
    Ok(())
}

/// Runs `kubectl bobbin nodes confirm-deletion` without a terminal.
fn confirm_deletion(fixture: &OperatorFixture, flags: &[&str]) -> Result<std::process::Output> {
    let mut command = std::process::Command::new(Artifacts::find()?.all());
    command.args(["kubectl", "nodes", "confirm-deletion", "--bobbin-namespace", NAMESPACE]).args(flags);
    command.arg(format!("--kubeconfig={}", fixture.control_plane.kubeconfig_for(ADMIN)?.display()));
    command.stdin(std::process::Stdio::null()).output().context("kubectl bobbin does not start")
}

async fn confirmed(_: &mut OperatorFixture) -> Result<()> {
    let fixture = with_twelve_nodes().await?;
    let flags = ["--no-leader-election", "--reclaim-hold=24h"];
    let first = observing_operator(&fixture, "first", "10.63.1.0/24", &flags).await?;
    let deleted = [0, 1, 2, 3];
    for number in deleted {
        fixture.delete_node_unannounced(&format!("h{number}")).await?;
    }
    for number in [4, 5] {
        fixture.delete_node(&format!("h{number}")).await?;
    }
    // Wait until the blocks of the cordoned nodes are free. These nodes were deleted last, so by then the grace periods
    // of the other nodes have ended too.
    for number in [4, 5] {
        fixture.until_free(&format!("held-{number}"), NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
    }
    must_own(&fixture, &deleted).await?;
    let time: Timestamp = confirmation(&fixture).await?.parse()?;
    ensure!(time <= Timestamp::now(), "the event names a time in the future: {time}");

    first.cancel();
    let second = observing_operator(&fixture, "second", "10.63.2.0/24", &flags).await?;
    fixture.delete_node("h6").await?;
    fixture.until_free("held-6", NODE_GRACE_PERIOD + RECONCILE_TIMEOUT).await?;
    must_own(&fixture, &deleted).await?;

    let config_maps: Api<ConfigMap> = Api::namespaced(fixture.client(), NAMESPACE);
    let asked = confirm_deletion(&fixture, &[])?;
    ensure!(!asked.status.success() && String::from_utf8_lossy(&asked.stderr).contains("add --yes"), "{asked:?}");
    let listed = String::from_utf8(asked.stdout.clone())?;
    ensure!(listed.matches("Held").count() == deleted.len(), "{listed}");
    must_own(&fixture, &deleted).await?;
    let confirmed = confirm_deletion(&fixture, &["--yes"])?;
    ensure!(confirmed.status.success(), "{confirmed:?}");
    released_slowly(&fixture, &deleted).await?;
    must_own(&fixture, &[7, 8, 9, 10, 11]).await?;
    wait_until("the ConfigMap of deleted nodes has no entry", RECONCILE_TIMEOUT, || async {
        let data = config_maps.get("bobbin-deleted-nodes").await?.data.unwrap_or_default();
        Ok(check(data.is_empty(), || format!("{data:?}")))
    })
    .await?;
    second.cancel();
    Ok(())
}

async fn expired(_: &mut OperatorFixture) -> Result<()> {
    let fixture = with_twelve_nodes().await?;
    let flags = ["--no-leader-election", "--reclaim-hold=15s"];
    let stop = observing_operator(&fixture, "waits", "10.63.1.0/24", &flags).await?;
    let deleted_at = Timestamp::now();
    for number in [0, 1, 2] {
        fixture.delete_node_unannounced(&format!("h{number}")).await?;
    }
    released_slowly(&fixture, &[0, 1, 2]).await?;
    for number in [0, 1, 2] {
        let block = fixture.blocks().get(&format!("held-{number}")).await?;
        let free_since = block.spec.free_since.context("the released block has no freeSince")?.0;
        ensure!(
            free_since >= deleted_at + Duration::from_secs(14),
            "the operator released held-{number} before the hold time had ended"
        );
    }
    stop.cancel();
    Ok(())
}
