//! Turns recorded metrics into a test file of promtool, and lets promtool evaluate the alert rules on them. A state that
//! was recorded in a second lasts for hours in the test file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use bobbin_e2e::chart;
use serde_json::{Value, json};
use xtask::programs::Programs;

use crate::fixture::{Monitored, succeeded};
use crate::scrape::{Scrape, Target};

/// The time between two samples in the test file, in seconds.
const INTERVAL_SECONDS: f64 = 60.0;
/// An age counts as growing if it grows by more than this per second of the recording.
const GROWTH: f64 = 0.5;

/// An alert that must fire, and the value of its label `pool` or `instance`, if it has such a label.
#[derive(Clone, Copy, Debug)]
pub enum Alert {
    Of(&'static str),
    OfPool(&'static str, &'static str),
    OfInstance(&'static str, Target),
}

/// Recorded states, one after another, and the alerts that must fire at the end of each of them.
#[derive(Debug, Default)]
pub struct Recording {
    steps: Vec<Step>,
    checks: Vec<Value>,
    /// The number of samples of all steps.
    samples: usize,
}

#[derive(Debug)]
struct Step {
    first_sample: usize,
    samples: usize,
    scrape: Scrape,
    lasting: Option<(Scrape, Target)>,
}

impl Recording {
    /// Adds a state that repeats for some minutes: ages keep their values, and timestamps follow the clock.
    pub fn repeat(self, minutes: usize, scrape: &Scrape, firing: &[Alert]) -> Self {
        self.step(minutes, scrape, None, firing)
    }

    /// Adds a state in which nothing happens at one target for some minutes. Ages that grew between the two scrapes
    /// continue to grow, and timestamps that did not change stay as they are.
    pub fn last(self, minutes: usize, scrapes: [&Scrape; 2], target: Target, firing: &[Alert]) -> Self {
        self.step(minutes, scrapes[1], Some((scrapes[0].clone(), target)), firing)
    }

    fn step(mut self, samples: usize, scrape: &Scrape, lasting: Option<(Scrape, Target)>, firing: &[Alert]) -> Self {
        self.steps.push(Step { first_sample: self.samples, samples, scrape: scrape.clone(), lasting });
        self.samples += samples;
        let expected: BTreeSet<String> = firing.iter().map(|alert| alert.labels()).collect();
        let expected: Vec<Value> = expected.iter().map(|labels| json!({"labels": labels, "value": 1})).collect();
        self.checks.push(json!({
            "expr": "group by (alertname, pool, instance) (ALERTS{alertstate=\"firing\"})",
            "eval_time": format!("{}m", self.samples - 1), "exp_samples": expected,
        }));
        self
    }

    /// The contents of a test file of promtool. JSON is also YAML.
    fn test_file(&self) -> Value {
        let names: BTreeSet<&String> = self.steps.iter().flat_map(|step| step.scrape.series.keys()).collect();
        let series: Vec<Value> = names
            .into_iter()
            .filter(|name| !name.contains("_bucket{"))
            .map(|name| {
                let values: Vec<String> = self.steps.iter().map(|step| step.values(name)).collect();
                json!({"series": name, "values": values.join(" ")})
            })
            .collect();
        json!({
            "rule_files": [rules()], "evaluation_interval": "1m",
            "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": self.checks}],
        })
    }

    /// Evaluates the rules. Fails if other alerts fire than expected.
    pub fn evaluate(&self, monitored: &Monitored) -> Result<()> {
        let file = monitored.node.path("rules-test.yaml");
        std::fs::write(&file, self.test_file().to_string())?;
        let output = Command::new(Programs::find()?.path("promtool")?).args(["test", "rules"]).arg(&file).output()?;
        succeeded("the evaluation of the alert rules", &output)
    }
}

impl Alert {
    /// The labels of the alert as promtool compares them.
    fn labels(self) -> String {
        match self {
            Alert::Of(name) => format!("{{alertname=\"{name}\"}}"),
            Alert::OfPool(name, pool) => format!("{{alertname=\"{name}\", pool=\"{pool}\"}}"),
            Alert::OfInstance(name, target) => {
                format!("{{alertname=\"{name}\", instance=\"{}\"}}", target.instance)
            }
        }
    }
}

impl Step {
    /// The values of one series in promtool's notation: a first value, the growth per sample, and a count of repetitions.
    fn values(&self, series: &str) -> String {
        let Some(&value) = self.scrape.series.get(series) else { return format!("_x{}", self.samples) };
        let name = series.split('{').next().unwrap_or(series);
        let start = self.first_sample as f64 * INTERVAL_SECONDS;
        let is_timestamp = name.ends_with("_timestamp_seconds") && value > 0.0;
        let first = if is_timestamp { start - (self.scrape.at - value) } else { value };
        let grows = match self.before(series) {
            Some((earlier, seconds)) if name.ends_with("_age_seconds") => value - earlier > GROWTH * seconds,
            Some((earlier, _)) => is_timestamp && value > earlier,
            None => is_timestamp,
        };
        let growth = if grows { INTERVAL_SECONDS } else { 0.0 };
        format!("{first}+{growth}x{}", self.samples - 1)
    }

    /// The earlier value of a series at the target where nothing happens, and the seconds since then.
    fn before(&self, series: &str) -> Option<(f64, f64)> {
        let (earlier, target) = self.lasting.as_ref()?;
        let of_target = series.contains(&format!("instance=\"{}\"", target.instance));
        let value = earlier.series.get(series).filter(|_| of_target)?;
        Some((*value, self.scrape.at - earlier.at))
    }
}

/// The path of the alert rules.
pub fn rules() -> PathBuf {
    chart::directory().join("rules/bobbin.yaml")
}
