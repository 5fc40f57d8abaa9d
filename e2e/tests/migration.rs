//! Moves a cluster from other CNI plugins to Bobbin and back, a node at a time, with the steps of `docs/migration.md`.

#[path = "migration/affinity.rs"]
mod affinity;
#[path = "migration/moves.rs"]
mod moves;
#[path = "cluster/probe.rs"]
mod probe;
#[path = "migration/router.rs"]
mod router;
#[path = "migration/steps.rs"]
mod steps;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let suite = bobbin_e2e::suite::Suite::without_fixture()?;
    let tests = [affinity::tests, moves::tests].into_iter().flat_map(|tests| tests(&suite)).collect();
    Ok(suite.run(tests))
}
