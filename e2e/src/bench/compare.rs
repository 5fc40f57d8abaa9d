//! Implements `make bench BEFORE=<directory>`, which compares ADD and DEL of two builds of Bobbin in one run.
//!
//! Each build has a separate node and API server. Each round measures both builds. The build that comes first changes
//! after each round.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xtask::artifacts::Artifacts;

use super::rounds::each;
use super::samples::Samples;
use super::stages::Verb;
use super::{BenchConfig, IPV4_POOL, KubePod, pod_objects};
use crate::single_node::{SingleNode, SingleNodeOptions, WAIT_TIMEOUT};

/// The number of ADDs per build and round. The same number of DELs follows.
const CALLS: usize = 20;
/// The number of rounds if `BENCH_ROUNDS` is not set.
const ROUNDS: usize = 20;

/// A build of Bobbin on a node with IPv4-only and dual-stack Pod objects.
struct Build {
    node: SingleNode,
    pods: Vec<KubePod>,
}

/// How long the ADDs and DELs of one build took, in all rounds together and in each round.
#[derive(Default)]
struct Times {
    all: [Samples; 2],
    rounds: Vec<[Samples; 2]>,
}

/// Compares the executables in `before` with the executables of this repository, and returns the table of results.
pub async fn run(before: &Path) -> Result<String> {
    let rounds = BenchConfig::rounds_from_environment(ROUNDS)?;
    let builds = [Build::start(Artifacts::in_directory(before)?).await?, Build::start(Artifacts::find()?).await?];
    let mut table = format!("times in ms{:>21} {:>8} {:>8}   {}\n", "before", "after", "ratio", "ratio of each round");
    for (family, ipv4_only) in [("IPv4", true), ("dual", false)] {
        let mut times = [Times::default(), Times::default()];
        for round in 0..rounds {
            eprintln!("bench: measuring {family} pods, round {} of {rounds}", round + 1);
            for turn in [round % 2, 1 - round % 2] {
                times[turn].add(builds[turn].measure(ipv4_only).await?);
            }
        }
        for (row, verb) in [Verb::Add, Verb::Del].into_iter().enumerate() {
            table += &line(&format!("{} {family}", verb.as_str()), row, &times)?;
        }
    }
    Ok(table)
}

impl Build {
    async fn start(artifacts: Artifacts) -> Result<Self> {
        eprintln!("bench: starting {}", artifacts.all().display());
        let options = SingleNodeOptions { fsync: true, artifacts: Some(artifacts), ..SingleNodeOptions::default() };
        let node = SingleNode::ready(options).await?;
        node.apply_pool(IPV4_POOL, json!({"subnets": [{"ipv4": "10.65.0.0/16"}]})).await?;
        for pool in ["default", IPV4_POOL] {
            node.await_free_blocks(pool).await?;
        }
        let pods = pod_objects(&node, CALLS).await?;
        Ok(Self { node, pods })
    }

    /// Measures one ADD after another for new sandboxes, and then one DEL after another.
    async fn measure(&self, ipv4_only: bool) -> Result<[Samples; 2]> {
        let pods = self.pods.iter().filter(|pod| pod.ipv4_only == ipv4_only);
        let mut sandboxes = pods.map(|pod| pod.sandbox(&self.node)).collect::<Result<Vec<_>>>()?;
        let (mut times, mut errors) = ([Samples::default(), Samples::default()], Vec::new());
        for (verb, samples) in [Verb::Add, Verb::Del].into_iter().zip(&mut times) {
            let (rest, took) = each(&self.node.plugin(), verb, sandboxes, &mut errors)?;
            sandboxes = rest;
            for one in took {
                samples.add(one);
            }
        }
        ensure!(errors.is_empty(), "{}: {}", self.node.artifacts.all().display(), errors.join("; "));
        self.node.await_assignments(&[], WAIT_TIMEOUT).await?;
        Ok(times)
    }
}

impl Times {
    fn add(&mut self, round: [Samples; 2]) {
        for (all, one) in self.all.iter_mut().zip(&round) {
            all.extend(one);
        }
        self.rounds.push(round);
    }
}

/// One line of the table: the p50 of each build over all rounds, and the ratio of both values. The line ends with the
/// range and the median of the ratios of the single rounds.
fn line(name: &str, row: usize, [before, after]: &[Times; 2]) -> Result<String> {
    let p50 = |samples: &Samples| {
        samples.percentile(50).context("no call of a build succeeded, so the table has no time for this build")
    };
    let (old, new) = (p50(&before.all[row])?, p50(&after.all[row])?);
    let mut ratios = Vec::new();
    for (old, new) in before.rounds.iter().zip(&after.rounds) {
        ratios.push(p50(&new[row])? / p50(&old[row])?);
    }
    ratios.sort_by(f64::total_cmp);
    let [first, middle, last] = [0, ratios.len() / 2, ratios.len() - 1].map(|place| ratios[place]);
    let mut line = String::new();
    writeln!(
        line,
        "{name:<22} {old:>9.2} {new:>8.2} {:>8.3}   {first:.3} to {last:.3}, median {middle:.3}",
        new / old
    )?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    //! Tests the comparison table.

    use std::time::Duration;

    use super::*;

    fn times(millis: &[u64]) -> Times {
        let mut times = Times::default();
        for one in millis {
            let mut samples = Samples::default();
            samples.add(Duration::from_millis(*one));
            times.add([samples.clone(), samples]);
        }
        times
    }

    #[test]
    fn a_line_has_the_ratio_of_the_medians_and_the_range_of_the_rounds() {
        let line = line("ADD", 0, &[times(&[10, 10, 20]), times(&[10, 20, 10])]).unwrap_or_default();
        assert_eq!(line, "ADD                        10.00    10.00    1.000   0.500 to 2.000, median 1.000\n");
        assert!(super::line("ADD", 0, &[times(&[]), times(&[])]).is_err());
    }
}
