//! One minute of random faults on the suite's cluster. This test runs last, because it installs the chart with other
//! values.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::chaos;
use bobbin_e2e::cluster::Cluster;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

/// How long the faults last, not counting the preparation and the checks afterwards.
const LENGTH: Duration = Duration::from_mins(1);
/// The seed of the random faults. The seed is fixed, so that a failed run can be repeated. `make chaos` chooses other
/// seeds.
const SEED: u64 = 1;

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![suite.test("one minute of random faults makes no duplicate and no leak", one_minute)]
}

async fn one_minute(cluster: &mut Cluster) -> Result<()> {
    chaos::prepare(cluster).await?;
    let outcome = chaos::run(cluster, SEED, LENGTH).await?;
    let findings: Vec<&String> = outcome.findings().collect();
    ensure!(
        outcome.is_good(),
        "the run failed ({outcome}); repeat it with SEED={SEED} make chaos; the findings are {findings:#?}"
    );
    Ok(())
}
