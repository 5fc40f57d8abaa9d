//! `make chaos`: causes random faults on a cluster of three nodes. `MINUTES` sets the length of the run, and `SEED` repeats
//! the plan of an earlier run.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bobbin_e2e::chaos;
use bobbin_e2e::cluster::{Cluster, ClusterOptions};
use bobbin_e2e::demo::print_step;

/// The length of a run if the variable `MINUTES` is not set.
const DEFAULT_MINUTES: u64 = 10;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let minutes = variable("MINUTES")?.unwrap_or(DEFAULT_MINUTES);
    let seed = variable("SEED")?.unwrap_or_else(|| u64::from(std::process::id()) ^ unix_seconds());
    print_step(&format!(
        "the seed of this run is {seed}; the command `SEED={seed} MINUTES={minutes} make chaos` repeats its plan"
    ));
    let mut cluster = Cluster::start(ClusterOptions::default()).await?;
    chaos::prepare(&mut cluster).await?;
    let outcome = chaos::run(&mut cluster, seed, Duration::from_secs(minutes * 60)).await?;
    for finding in outcome.findings() {
        print_step(finding);
    }
    if !outcome.is_good() {
        print_step(&cluster.describe_state());
        print_step(&format!("the seed of this run was {seed}"));
    }
    drop(cluster);
    println!("{outcome}");
    Ok(if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the whole number in an environment variable, or `None` if the variable is not set.
fn variable(name: &str) -> anyhow::Result<Option<u64>> {
    let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{name}={text:?} is not a whole number; write for example {name}=3"))
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
