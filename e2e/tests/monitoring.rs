//! Tests the alert rules and the Grafana dashboard on the metrics of a real operator and a real agent. Each test makes the
//! cause of some alerts, records the metrics, and lets promtool evaluate the rules on the recording.

#[path = "monitoring/attachments.rs"]
mod attachments;
#[path = "monitoring/chart_files.rs"]
mod chart_files;
#[path = "monitoring/dashboard.rs"]
mod dashboard;
#[path = "monitoring/fixture.rs"]
mod fixture;
#[path = "monitoring/outages.rs"]
mod outages;
#[path = "monitoring/pod_comparison.rs"]
mod pod_comparison;
#[path = "monitoring/pools.rs"]
mod pools;
#[path = "monitoring/prometheus.rs"]
mod prometheus;
#[path = "monitoring/recording.rs"]
mod recording;
#[path = "monitoring/scrape.rs"]
mod scrape;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let suite = fixture::suite()?;
    let mut tests = chart_files::tests();
    // The dashboard comes last, because its panels also show the pools that the other tests created.
    let with_cluster = [attachments::tests, pod_comparison::tests, outages::tests, pools::tests, dashboard::tests];
    tests.extend(with_cluster.into_iter().flat_map(|tests| tests(&suite)));
    Ok(suite.run(tests))
}
