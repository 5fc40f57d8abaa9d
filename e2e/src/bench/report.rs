//! The benchmark's report: rows, thresholds, and a summary as the last line.

use std::fmt;

use super::claims::ClaimCalls;
use super::samples::Samples;
use super::stages::{Phase, Verb};
use super::thresholds::NOT_MEASURED;
use crate::network::NetworkFault;

/// The times of one kind of call, and the times with which the report compares them.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the row.
    pub name: String,
    /// The times of Bobbin's calls.
    pub ours: Samples,
    /// The times for comparison, usually those of the reference plugins. `None` if there is nothing to compare with.
    pub reference: Option<Samples>,
}

/// A threshold, and whether the report meets it.
#[derive(Clone, Debug)]
pub struct Threshold {
    /// The requirement, as a sentence.
    pub name: String,
    /// The measured and the allowed value.
    pub seen: String,
    /// Whether the report meets the requirement.
    pub met: bool,
    /// The place to look if the requirement is not met, usually the stage of the call that takes longest.
    pub stage: String,
}

/// All results of the benchmark.
#[derive(Debug, Default)]
pub struct Report {
    /// The rows, in the order of measurement.
    pub rows: Vec<Row>,
    /// The errors of Bobbin's failed calls.
    pub errors: Vec<String>,
    /// The errors of the reference plugins' failed calls. These errors do not affect the thresholds.
    pub reference_errors: Vec<String>,
    /// The size of the plugin executable in bytes.
    pub plugin_bytes: Option<u64>,
    /// One entry each for ADD and DEL. An entry has the verb, the mean number of API writes per call, and the mean
    /// number of API reads.
    pub calls: Vec<(&'static str, f64, f64)>,
    /// The API calls of a thousand simultaneous claims.
    pub claim_calls: Option<ClaimCalls>,
    /// The agent's resident memory with 250 pods, in KiB.
    pub agent_kib: Option<u64>,
    /// The times from the start of the agent to the first successful ADD, for each network fault.
    pub restarts: Vec<(NetworkFault, Samples)>,
    /// The stages of Bobbin's calls, for each phase of the benchmark (such as `one by one, IPv4`).
    pub phases: Vec<(&'static str, Phase)>,
    /// The thresholds, in the order in which they are evaluated.
    pub thresholds: Vec<Threshold>,
}

impl Report {
    /// The report's row with this name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The stages of the calls in the phase with this name.
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|(known, _)| *known == name).map(|(_, phase)| phase)
    }

    /// Adds a row to the report.
    pub fn add(&mut self, name: &str, ours: Samples, reference: Option<Samples>) {
        self.rows.push(Row { name: name.to_owned(), ours, reference });
    }

    fn row_count(&self) -> usize {
        let single = [self.plugin_bytes.is_some(), self.claim_calls.is_some(), self.agent_kib.is_some()];
        self.rows.len() + self.restarts.len() + self.calls.len() + single.into_iter().filter(|there| *there).count()
    }
}

fn times(samples: &Samples) -> String {
    let read = |percent| samples.percentile(percent).map_or("-".to_owned(), |millis| format!("{millis:.2}"));
    format!("{:>8} {:>8} {:>8} {:>6}", read(50), read(95), read(99), samples.count())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "times in ms{:>42} {:>35} {:>7}", "Bobbin", "ptp + host-local", "ratio")?;
        let head = format!("{:>8} {:>8} {:>8} {:>6}", "p50", "p95", "p99", "count");
        writeln!(f, "{:<26} {head}   {head}", "")?;
        for row in &self.rows {
            write!(f, "{:<26} {}", row.name, times(&row.ours))?;
            if let Some(reference) = &row.reference {
                write!(f, "   {}", times(reference))?;
                if let (Some(ours), Some(theirs)) = (row.ours.percentile(50), reference.percentile(50)) {
                    write!(f, " {:>7.2}", ours / theirs)?;
                }
            }
            writeln!(f)?;
        }
        for (fault, samples) in &self.restarts {
            writeln!(f, "{:<26} {}", format!("restart, API {}", describe(*fault)), times(samples))?;
        }
        for (verb, writes, reads) in &self.calls {
            writeln!(f, "{:<26} {writes:.2} writes, {reads:.2} reads", format!("API calls of one {verb}"))?;
        }
        if let Some(calls) = &self.claim_calls {
            let [p50, p99, most] = [50, 99, 100].map(|percent| calls.percentile(percent).unwrap_or_default());
            writeln!(f, "{:<26} p50 {p50}, p99 {p99}, most {most}", "API calls of one claim")?;
        }
        if let Some(kib) = self.agent_kib {
            writeln!(f, "{:<26} {:.1} MiB", "agent, 250 pods", kib as f64 / 1024.0)?;
        }
        if let Some(bytes) = self.plugin_bytes {
            writeln!(f, "{:<26} {:.3} MiB", "plugin", bytes as f64 / 1_048_576.0)?;
        }
        for (name, phase) in &self.phases {
            for (verb, percent) in [(Verb::Add, 50), (Verb::Add, 99), (Verb::Del, 50), (Verb::Del, 99)] {
                let stages: Vec<String> = phase.stages(verb, percent).iter().map(ToString::to_string).collect();
                writeln!(f, "stages of {} {name}, p{percent}: {}", verb.as_str(), stages.join(", "))?;
            }
        }
        for error in &self.errors {
            writeln!(f, "error: {error}")?;
        }
        for error in &self.reference_errors {
            writeln!(f, "error of the reference plugins: {error}")?;
        }
        for threshold in &self.thresholds {
            let (result, stage) =
                if threshold.met { ("met   ", String::new()) } else { ("MISSED", format!("; {}", threshold.stage)) };
            writeln!(f, "{result} {:<86} {}{stage}", threshold.name, threshold.seen)?;
        }
        for (threshold, why) in NOT_MEASURED {
            writeln!(f, "not measured here: {threshold} ({why})")?;
        }
        let met = self.thresholds.iter().filter(|threshold| threshold.met).count();
        writeln!(f, "bench: {} rows, {} thresholds, {met} met", self.row_count(), self.thresholds.len())
    }
}

/// Describes, for the report, the API server during a network fault.
pub fn describe(fault: NetworkFault) -> &'static str {
    match fault {
        NetworkFault::None => "healthy",
        NetworkFault::Refuse => "refusing",
        NetworkFault::BlackHole => "silent",
        NetworkFault::DropResponses => "losing answers",
        NetworkFault::Delay(_) => "slow",
    }
}
