//! Faults in the pods' namespaces, and the difference between a check in motion and one at rest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::invariants::{self, Kind};
use bobbin_e2e::single_node::SingleNode;

use super::stage::Stage;

/// Longer than two snapshots take.
const DEADLINE: Duration = Duration::from_mins(2);

pub async fn planted(node: &mut SingleNode) -> Result<()> {
    let stage = Stage::set(node).await?;
    let address = stage.ada.addresses()?.first().context("ada has no address")?.to_string();

    // A duplicate is never allowed, so both checks report it at once.
    stage.bob.namespace.ip(&format!("addr add {address}/32 dev eth0\n"))?;
    let words = ["pod default/ada", "pod default/bob", "both have", &address, "network namespace"];
    stage.sees(Kind::DuplicateAddress, &words).await?;
    stage.sees(Kind::AddressInUseFreed, &["default/bob", &address]).await?;
    let found = invariants::never_allowed(stage.node).await;
    ensure!(found.iter().any(|one| one.kind == Kind::DuplicateAddress), "found {found:?}");
    let start = Instant::now();
    let error = invariants::await_none(stage.node, DEADLINE).await.err().context("nothing was found")?;
    ensure!(start.elapsed() < DEADLINE && format!("{error:#}").contains("never allowed"), "{error:#}");
    stage.bob.namespace.ip(&format!("addr del {address}/32 dev eth0\n"))?;
    stage.is_clean().await?;

    // A missing assignment may be in motion, so only a check at rest reports it, at its deadline.
    stage.delete_assignment(&address).await?;
    ensure!(invariants::never_allowed(stage.node).await.is_empty(), "a missing assignment was reported at once");
    let error = invariants::await_none(stage.node, Duration::ZERO).await.err().context("nothing was found")?;
    ensure!(format!("{error:#}").contains("no assignment"), "{error:#}");
    stage.strike().await
}
