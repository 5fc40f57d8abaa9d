//! Where the time of a call goes inside the agent, from its own metrics: said beside a bar that is missed. Only what is counted while
//! calls are made one by one is told; a hundred at once wait for each other.

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

/// Sums (seconds) and counts of the stages so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals([(f64, f64); STAGES.len()]);

impl Totals {
    /// As the agent says now.
    pub fn read(node: &LoneNode) -> Result<Self> {
        let text = node.namespace.run(fetch)?.context("the agent's metrics can't be read")?;
        let of = |(name, label, _): (&str, &str, &str)| {
            (total(&text, &format!("{name}_sum"), label), total(&text, &format!("{name}_count"), label))
        };
        Ok(Self(STAGES.map(of)))
    }

    /// Adds what was counted between two looks.
    pub fn gather(&mut self, before: Self, after: Self) {
        for (place, sum) in self.0.iter_mut().enumerate() {
            sum.0 += after.0[place].0 - before.0[place].0;
            sum.1 += after.0[place].1 - before.0[place].1;
        }
    }

    /// Puts the means into the report.
    pub fn tell(&self, report: &mut Report) {
        for ((sum, count), (_, _, stage)) in self.0.iter().zip(STAGES) {
            if *count > 0.0 {
                report.stages.push((stage.to_owned(), sum / count * 1000.0));
            }
        }
    }
}

fn fetch() -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&METRICS.parse()?, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The sum of all samples whose name ends so and whose labels have the text.
fn total(text: &str, name: &str, label: &str) -> f64 {
    text.lines()
        .filter(|line| !line.starts_with('#') && line.contains(label))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next().is_some_and(|series| series.ends_with(name)))
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}
