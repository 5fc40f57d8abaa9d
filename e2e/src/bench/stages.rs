//! Where the time of a call goes inside the agent, from its own metrics: said beside a bar that is missed. Only what is counted while
//! calls are made one by one is told; a hundred at once wait for each other.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{METRICS, Report};
use crate::lone_node::LoneNode;

/// The histograms of the agent that are stages, and what they are called here.
const STAGES: [(&str, &str, &str); 4] = [
    ("cni_call_duration_seconds", "verb=\"ADD\"", "ADD in the agent"),
    ("wiring_duration_seconds", "", "of that, the kernel's wiring"),
    ("verdict_wait_seconds", "", "of that, waiting for the API server after it"),
    ("cni_call_duration_seconds", "verb=\"DEL\"", "DEL in the agent"),
];

/// What became of one stage in all calls.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What is measured.
    pub name: &'static str,
    /// In milliseconds.
    mean: f64,
    /// The upper bound, in milliseconds, of the histogram's bucket that the median and the 99th percentile lie in.
    at_most: [f64; 2],
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, slowest] = self.at_most;
        write!(f, "{} {:.2} ms in the mean (p50 below {half} ms, p99 below {slowest} ms)", self.name, self.mean)
    }
}

/// One histogram: its sum in seconds, its count, and the count up to each bound in seconds.
#[derive(Clone, Debug, Default)]
struct Histogram {
    sum: f64,
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
                "_sum" => histogram.sum += value,
                "_count" => histogram.count += value,
                "_bucket" => histogram.add(bound(labels), value),
                _ => {}
            }
        }
        histogram
    }

    /// Counts of two series with the same bound, an ADD that went well and one that did not, are one.
    fn add(&mut self, bound: f64, value: f64) {
        match self.buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
            Some((_, count)) => *count += value,
            None => self.buckets.push((bound, value)),
        }
    }

    fn plus(&mut self, other: &Self, sign: f64) {
        self.sum += sign * other.sum;
        self.count += sign * other.count;
        for (bound, count) in &other.buckets {
            self.add(*bound, sign * count);
        }
    }

    /// The bound below which this share of the samples lies, in milliseconds.
    fn at_most(&self, share: f64) -> f64 {
        let enough = self.buckets.iter().filter(|(_, count)| *count >= share * self.count).map(|(bound, _)| *bound);
        enough.fold(f64::INFINITY, f64::min) * 1000.0
    }
}

/// The stages so far.
#[derive(Clone, Debug, Default)]
pub struct Totals([Histogram; STAGES.len()]);

impl Totals {
    /// As the agent says now.
    pub fn read(node: &LoneNode) -> Result<Self> {
        let text = node.namespace.run(fetch)?.context("the agent's metrics can't be read")?;
        Ok(Self(STAGES.map(|(name, label, _)| Histogram::read(&text, name, label))))
    }

    /// Adds what was counted between two looks.
    pub fn gather(&mut self, before: &Self, after: &Self) {
        for (place, histogram) in self.0.iter_mut().enumerate() {
            histogram.plus(&after.0[place], 1.0);
            histogram.plus(&before.0[place], -1.0);
        }
    }

    /// Puts the stages into the report.
    pub fn tell(&self, report: &mut Report) {
        for (histogram, (_, _, name)) in self.0.iter().zip(STAGES).filter(|(histogram, _)| histogram.count > 0.0) {
            let mean = histogram.sum / histogram.count * 1000.0;
            report.stages.push(Stage { name, mean, at_most: [histogram.at_most(0.5), histogram.at_most(0.99)] });
        }
    }
}

/// The name, the labels and the value of a line.
fn series(line: &str) -> Option<(&str, &str, f64)> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels, value.parse().ok()?))
}

/// The bound of a bucket.
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
    //! Reading the agent's histograms.

    use super::*;

    #[test]
    fn a_histogram_tells_mean_and_percentiles_of_what_came_between_two_looks() {
        let text = |more: u32| {
            format!(
                "# HELP x\nbobbin_agent_wiring_duration_seconds_sum {}\nbobbin_agent_wiring_duration_seconds_count {}\n\
                 bobbin_agent_wiring_duration_seconds_bucket{{le=\"0.001\"}} {}\n\
                 bobbin_agent_wiring_duration_seconds_bucket{{le=\"0.002\"}} {}\n\
                 bobbin_agent_wiring_duration_seconds_bucket{{le=\"+Inf\"}} {}\n",
                0.1 * f64::from(more),
                100 * more,
                60 * more,
                99 * more,
                100 * more
            )
        };
        let look = |more| Histogram::read(&text(more), "wiring_duration_seconds", "");
        let mut gathered = Histogram::default();
        gathered.plus(&look(3), 1.0);
        gathered.plus(&look(1), -1.0);
        assert!((gathered.sum - 0.2).abs() < 1e-9 && (gathered.count - 200.0).abs() < 1e-9);
        assert_eq!((gathered.at_most(0.5), gathered.at_most(0.99), gathered.at_most(1.0)), (1.0, 2.0, f64::INFINITY));
    }
}
