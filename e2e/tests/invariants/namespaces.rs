//! Plants faults in the pods' network namespaces. `await_none` checks a cluster at rest, and `never_allowed` a cluster
//! that is changing. So `await_none` must report some faults that `never_allowed` must tolerate.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::invariants::{self, Kind};
use bobbin_e2e::single_node::SingleNode;

use super::stage::Stage;

/// A deadline that leaves enough time for two snapshots of the cluster.
const DEADLINE: Duration = Duration::from_mins(2);

pub async fn planted(node: &mut SingleNode) -> Result<()> {
    let stage = Stage::set(node).await?;
    let address = stage.ada.addresses()?.first().context("the pod ada has no address")?.to_string();

    // A duplicate address is never allowed, so both kinds of check report it at once.
    stage.bob.namespace.ip(&format!("addr add {address}/32 dev eth0\n"))?;
    let words = ["pod default/ada", "pod default/bob", "both have", &address, "network namespace"];
    stage.sees(Kind::DuplicateAddress, &words).await?;
    stage.sees(Kind::AddressInUseFreed, &["default/bob", &address]).await?;
    let found = invariants::never_allowed(stage.node).await;
    ensure!(found.iter().any(|one| one.kind == Kind::DuplicateAddress), "found {found:?}");
    let start = Instant::now();
    let error = invariants::await_none(stage.node, DEADLINE).await.err().context("the checker found nothing")?;
    ensure!(start.elapsed() < DEADLINE && format!("{error:#}").contains("never allowed"), "{error:#}");
    stage.bob.namespace.ip(&format!("addr del {address}/32 dev eth0\n"))?;
    stage.is_clean().await?;

    // An agent may be about to create a missing assignment, so `never_allowed` does not report it. `await_none` reports
    // it, but only at its deadline.
    stage.delete_assignment(&address).await?;
    ensure!(
        invariants::never_allowed(stage.node).await.is_empty(),
        "the checker reported a missing assignment before its deadline"
    );
    let error = invariants::await_none(stage.node, Duration::ZERO).await.err().context("the checker found nothing")?;
    ensure!(format!("{error:#}").contains("no assignment"), "{error:#}");
    stage.strike().await
}
