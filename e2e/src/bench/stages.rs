//! Divides the time of a call into stages, using the benchmark's clock and the agent's metrics. For each missed
//! threshold, the report names the stage that takes longest.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use super::METRICS;
use super::samples::Samples;
use crate::single_node::SingleNode;

/// The agent's histograms that the benchmark reads: the name of the metric, and the label of the time series to read.
const HISTOGRAMS: [(&str, &str); 4] = [
    ("cni_call_duration_seconds", "verb=\"ADD\""),
    ("wiring_duration_seconds", ""),
    ("confirmation_wait_seconds", ""),
    ("cni_call_duration_seconds", "verb=\"DEL\""),
];

/// The CNI verb of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// ADD.
    Add,
    /// DEL.
    Del,
}

impl Verb {
    /// The value of `CNI_COMMAND` for the verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
        }
    }
}

/// The time of one stage of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The name of the stage.
    pub name: &'static str,
    /// The time of the stage in milliseconds, at the requested percentile.
    pub millis: f64,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.2} ms", self.name, self.millis)
    }
}

/// The stages of all calls in one phase of the benchmark. A phase makes all its calls in the same way, for example one by
/// one.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    add: Samples,
    del: Samples,
    agent: Totals,
}

impl Phase {
    /// Adds the time of a call, from exec of the plugin to its exit.
    pub fn seen(&mut self, verb: Verb, took: Duration) {
        match verb {
            Verb::Add => self.add.add(took),
            Verb::Del => self.del.add(took),
        }
    }

    /// Adds the counts that the agent's histograms gained between two readings of the metrics.
    pub fn gather(&mut self, before: &Totals, after: &Totals) {
        for (place, histogram) in self.agent.0.iter_mut().enumerate() {
            histogram.plus(&after.0[place], 1.0);
            histogram.plus(&before.0[place], -1.0);
        }
    }

    /// The stages of a verb's calls at a percentile, longest first. The times are estimates, because they are
    /// interpolated within histogram buckets. The times of the stages do not add up exactly to the time of the call.
    pub fn stages(&self, verb: Verb, percent: usize) -> Vec<Stage> {
        let [add, wiring, waiting, del] = self.agent.0.each_ref().map(|one| one.quantile(percent));
        let samples = if verb == Verb::Add { &self.add } else { &self.del };
        let Some(seen) = samples.percentile(percent) else { return Vec::new() };
        let stage = |name, millis: f64| Stage { name, millis: millis.max(0.0) };
        let mut stages = match verb {
            Verb::Add => vec![
                stage("the plugin and its request to the agent", seen - add),
                stage("the kernel's wiring", wiring),
                stage("waiting for the assignment after the wiring", waiting),
                stage("the agent's own work (address, checkpoint, queues)", add - wiring - waiting),
            ],
            Verb::Del => {
                vec![
                    stage("the plugin and its request to the agent", seen - del),
                    stage("the agent, including the removal of the link", del),
                ]
            }
        };
        stages.sort_by(|one, other| other.millis.total_cmp(&one.millis));
        stages
    }
}

/// One histogram of the agent: the total count, and the count up to each bound in seconds.
#[derive(Clone, Debug, Default)]
struct Histogram {
    count: f64,
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    fn read(text: &str, name: &str, label: &str) -> Self {
        let mut histogram = Self::default();
        for (series, labels, value) in text.lines().filter_map(series) {
            let Some(part) = series.rsplit_once(name).map(|(_, part)| part).filter(|_| labels.contains(label)) else {
                continue;
            };
            match part {
                "_count" => histogram.count += value,
                "_bucket" => histogram.add(bound(labels), value),
                _ => {}
            }
        }
        histogram
    }

    /// Adds the count that one time series has for a bound. Successful and failed ADDs have separate time series with
    /// the same bounds, so the histogram holds the sums of their counts.
    fn add(&mut self, bound: f64, value: f64) {
        match self.buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
            Some((_, count)) => *count += value,
            None => self.buckets.push((bound, value)),
        }
    }

    fn plus(&mut self, other: &Self, sign: f64) {
        self.count += sign * other.count;
        for (bound, count) in &other.buckets {
            self.add(*bound, sign * count);
        }
    }

    /// The percentile in milliseconds, interpolated within its bucket. If the percentile is above the last finite bound,
    /// returns this bound.
    fn quantile(&self, percent: usize) -> f64 {
        let rank = self.count * percent as f64 / 100.0;
        let mut buckets = self.buckets.clone();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let (mut below, mut counted) = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= rank && count > counted {
                let share = (rank - counted) / (count - counted);
                return 1000.0 * if bound.is_finite() { below + (bound - below) * share } else { below };
            }
            (below, counted) = (bound, count);
        }
        0.0
    }
}

/// The counts of the agent's histograms at one reading of the metrics.
#[derive(Clone, Debug, Default)]
pub struct Totals([Histogram; HISTOGRAMS.len()]);

impl Totals {
    /// Reads the agent's metrics.
    pub fn read(node: &SingleNode) -> Result<Self> {
        let text = node.namespace.run(fetch)?.context("the benchmark could not read the agent's metrics")?;
        Ok(Self(HISTOGRAMS.map(|(name, label)| Histogram::read(&text, name, label))))
    }
}

/// Splits a line of the metrics into the name, the labels and the value.
fn series(line: &str) -> Option<(&str, &str, f64)> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels, value.parse().ok()?))
}

/// The upper bound of a histogram's bucket, read from its labels.
fn bound(labels: &str) -> f64 {
    let text = labels.split_once("le=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or("+Inf");
    text.parse().unwrap_or(f64::INFINITY)
}

fn fetch() -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&METRICS.parse()?, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    //! Tests how the benchmark reads the agent's histograms.

    use super::*;

    fn text(name: &str, labels: &str, calls: u32) -> String {
        let bucket = |bound: &str, count: u32| {
            let comma = if labels.is_empty() { "" } else { "," };
            format!("bobbin_agent_{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}\n")
        };
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        format!("# HELP x\nbobbin_agent_{name}_sum{labels} 1\nbobbin_agent_{name}_count{labels} {}\n", 100 * calls)
            + &bucket("0.001", 60 * calls)
            + &bucket("0.002", 99 * calls)
            + &bucket("+Inf", 100 * calls)
    }

    #[test]
    fn a_histogram_tells_percentiles_of_what_came_between_two_looks() {
        let look = |calls| Histogram::read(&text("wiring_duration_seconds", "", calls), "wiring_duration_seconds", "");
        let mut gathered = Histogram::default();
        assert!(gathered.quantile(50).abs() < 1e-9);
        gathered.plus(&look(3), 1.0);
        gathered.plus(&look(1), -1.0);
        assert!((gathered.count - 200.0).abs() < 1e-9);
        let near = |percent, millis: f64| assert!((gathered.quantile(percent) - millis).abs() < 1e-9, "p{percent}");
        near(30, 0.5);
        near(60, 1.0);
        near(99, 2.0);
        // Values above the last bound are unknown, so `quantile` returns the last bound.
        near(100, 2.0);
    }

    #[test]
    fn the_costliest_stage_comes_first() {
        let agent = text("cni_call_duration_seconds", "verb=\"ADD\",result=\"ok\"", 1)
            + &text("cni_call_duration_seconds", "verb=\"DEL\",result=\"ok\"", 1)
            + &text("wiring_duration_seconds", "", 1);
        let after = Totals(HISTOGRAMS.map(|(name, label)| Histogram::read(&agent, name, label)));
        let mut phase = Phase::default();
        assert_eq!(phase.stages(Verb::Add, 50), []);
        phase.gather(&Totals::default(), &after);
        phase.seen(Verb::Add, Duration::from_micros(1500));
        phase.seen(Verb::Del, Duration::from_millis(10));
        let first = |verb| phase.stages(verb, 60).first().map(ToString::to_string);
        assert_eq!(first(Verb::Add).as_deref(), Some("the kernel's wiring 1.00 ms"));
        assert_eq!(first(Verb::Del).as_deref(), Some("the plugin and its request to the agent 9.00 ms"));
    }
}
