//! One minute of chaos on the suite's cluster. It runs last, because it leaves the chart with other values.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::chaos;
use bobbin_e2e::cluster::Cluster;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

/// The length of the run, without preparation and settling.
const LENGTH: Duration = Duration::from_mins(1);
/// The seed of the plan. It is the same in each run, so a run that fails can be repeated. `make chaos` chooses other seeds.
const SEED: u64 = 1;

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![suite.test("one minute of random faults makes no duplicate and no leak", one_minute)]
}

async fn one_minute(cluster: &mut Cluster) -> Result<()> {
    chaos::prepare(cluster).await?;
    let outcome = chaos::run(cluster, SEED, LENGTH).await?;
    let findings: Vec<&String> = outcome.findings().collect();
    ensure!(outcome.is_good(), "SEED={SEED} make chaos repeats this plan; {outcome}; {findings:#?}");
    Ok(())
}
