//! Reads a metrics page once, as Prometheus does, and parses the series.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::network::Namespace;

/// How long one answer may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A program whose metrics are scraped. Prometheus adds `job` and `instance` as labels to every series.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub job: &'static str,
    pub instance: &'static str,
}

/// The series of all targets at one moment. The keys are the series as PromQL writes them.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// When the scrape began, in seconds since 1970.
    pub at: f64,
    pub series: BTreeMap<String, f64>,
}

impl Scrape {
    /// Adds the series of a target. `page` is in the text format of Prometheus or of OpenMetrics.
    pub fn add(&mut self, target: Target, page: &str) -> Result<()> {
        for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("the line {line:?} has no value"))?;
            let value = value.parse().with_context(|| format!("the value of {line:?} is no number"))?;
            self.series.insert(with_target(series, target), value);
        }
        Ok(())
    }

    /// A copy of this scrape in which the series of target `from` are series of target `to`.
    #[must_use]
    pub fn moved(&self, from: Target, to: Target) -> Self {
        let labels = |target: Target| with_target("", target);
        let (from, to) = (labels(from), labels(to));
        let (from, to) = (from.trim_end_matches('}'), to.trim_end_matches('}'));
        let series = self.series.iter().map(|(series, value)| (series.replace(from, to), *value));
        Self { at: self.at, series: series.collect() }
    }

    /// The value of the one series with this name and these parts of its labels. `None` if there is no such series.
    pub fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let matches =
            |series: &str| series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
        self.series.iter().find_map(|(series, value)| matches(series).then_some(*value))
    }
}

/// The series with the labels `job` and `instance` of its target.
fn with_target(series: &str, Target { job, instance }: Target) -> String {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let comma = if labels == "}" { "" } else { "," };
    format!("{name}{{job=\"{job}\",instance=\"{instance}\"{comma}{labels}")
}

/// Sends a GET request to `address` and returns the body of the answer. If a namespace is given, connects from that
/// namespace.
pub fn get(namespace: Option<&Namespace>, address: SocketAddr, path: &'static str) -> Result<String> {
    let get = move || -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, RESPONSE_TIMEOUT)
            .with_context(|| format!("no process listens at {address}"))?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = match namespace {
        Some(namespace) => namespace.run(get)??,
        None => get()?,
    };
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP response")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{address} does not serve {path}: {head}");
    Ok(body.to_owned())
}
