//! Tests the text and the table of metrics.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::*;
use crate::Watchdog;

/// The value of a series in the text.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn gauges_are_refreshed_at_each_read() {
    let mut metrics = Metrics::default();
    let gauge =
        metrics.component("agent").add(&Definition::new("reads", "reads", "How many reads"), Gauge::<i64>::default());
    metrics.on_read(move || {
        gauge.inc();
    });
    assert_eq!(value(&metrics.text(), "bobbin_agent_reads"), Some(1.0));
    assert_eq!(value(&metrics.text(), "bobbin_agent_reads"), Some(2.0));
}

#[test]
fn the_table_has_the_names_that_prometheus_shows() {
    let mut metrics = Metrics::default();
    let labels = &[Label::Only("result", &["ok", "error"]), Label::Described("pool", "the pool")];
    let calls = Definition::new("calls", "calls", "Answered calls").labels(labels);
    metrics.component("agent").add(&calls, Counter::<u64>::default());
    assert!(metrics.text().contains("\nbobbin_agent_calls_total 0\n"));
    let row =
        "| `bobbin_agent_calls_total` | counter | `result`: `ok`, `error`. `pool`: the pool | calls | Answered calls |";
    assert_eq!(table(metrics.listed()).lines().nth(2), Some(row));
}

#[test]
fn the_process_is_measured() {
    let mut metrics = Metrics::default();
    metrics.add_process();
    let text = metrics.text();
    for (name, least) in [
        ("process_cpu_seconds_total", 0.0),
        ("process_resident_memory_bytes", 100_000.0),
        ("process_virtual_memory_bytes", 100_000.0),
        ("process_open_fds", 3.0),
        ("process_max_fds", 3.0),
        ("process_start_time_seconds", 1_600_000_000.0),
    ] {
        assert!(value(&text, name).is_some_and(|value| value >= least), "{name}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_loop_that_runs_has_its_age() {
    let (mut metrics, watchdog) = (Metrics::default(), Watchdog::default());
    metrics.component("agent").add_loop_ages(watchdog.clone());
    let beat = watchdog.register("demand", Duration::from_mins(1));
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!(value(&metrics.text(), "bobbin_agent_loop_age_seconds{loop=\"demand\"}"), Some(7.0));
    beat.beat();
    assert_eq!(value(&metrics.text(), "bobbin_agent_loop_age_seconds{loop=\"demand\"}"), Some(0.0));
    drop(beat);
    assert_eq!(value(&metrics.text(), "bobbin_agent_loop_age_seconds{loop=\"demand\"}"), None);
}
