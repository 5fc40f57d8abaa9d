//! Writes docs/reference/metrics.md. With `--check`, only reports whether the existing file is out of date.

use std::path::Path;
use std::process::ExitCode;

use bobbin_observability::metrics::{Listed, table};

/// The text before the tables.
const INTRODUCTION: &str = "\
# Metrics

The operator and each agent serve their metrics at the path `/metrics`, in the OpenMetrics text format.
The agent listens on port 9119 of its node, and the operator on port 9118 (chart values `agent.port` and `operator.port`).
If `metrics.podMonitor.enabled` is true, the chart creates a PodMonitor for the agents and one for the operator.

Each metric exists from the start of its program. A counter with known labels starts at 0.
A series with the label `pool` exists as long as its pool. If several operators run, only the leader has series with this label.
A histogram has the series `_bucket`, `_sum` and `_count`.

A generator writes this page from the code. To update the page, run `cargo run -p bobbin-all --example metricsgen`.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics.md");
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => std::fs::write(&path, page()).map_err(|error| format!("can't write {}: {error}", path.display())),
        ["--check"] if std::fs::read_to_string(&path).unwrap_or_default() == page() => Ok(()),
        ["--check"] => Err(format!(
            "{} is out of date: run `cargo run -p bobbin-all --example metricsgen` and commit the result",
            path.display()
        )),
        _ => Err("the argument is unknown: run metricsgen without arguments to write docs/reference/metrics.md, or with --check to compare the file with the code".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

fn page() -> String {
    let (agent, operator) = (bobbin_node_agent::list_metrics(), bobbin_operator::list_metrics());
    let of_process: Vec<Listed> = agent.iter().filter(|metric| metric.is_of_process()).cloned().collect();
    let sections = [("The agent", agent), ("The operator", operator)];
    let own = sections.map(|(title, metrics)| section(title, metrics.iter().filter(|metric| !metric.is_of_process())));
    format!("{INTRODUCTION}{}{}", own.concat(), section("The process of each program", &of_process))
}

fn section<'a>(title: &str, metrics: impl IntoIterator<Item = &'a Listed>) -> String {
    format!("\n## {title}\n\n{}", table(metrics))
}
