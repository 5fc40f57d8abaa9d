//! Tests which differences become metrics.

use bobbin_api_client::RequestMetrics;
use bobbin_observability::{Metrics, Watchdog};

use super::super::comparison::PodId;
use super::*;

fn held(address: &str, uid: &str) -> Difference {
    let pod = PodId { namespace: "shop".into(), name: "web".into(), uid: uid.into() };
    let address = address.parse().expect("it is an address");
    Difference { kind: Kind::HeldNotUsed, pool: "p".into(), address, pod }
}

/// A report, and a function that returns the lines of the metric `operator_held_not_used_addresses`.
fn report() -> (Report, impl Fn() -> Vec<String>) {
    let (metrics, mut page) = (OperatorMetrics::default(), Metrics::default());
    metrics.register(&mut page, &RequestMetrics::default(), Watchdog::default());
    let lines = move || {
        let text = page.text();
        let lines = text.lines().filter(|line| line.starts_with("bobbin_operator_held_not_used_addresses{"));
        lines.map(|line| line.trim_start_matches("bobbin_operator_held_not_used_addresses").to_owned()).collect()
    };
    (Report::new(metrics), lines)
}

#[test]
fn a_figure_appears_with_the_second_comparison_and_counts_what_both_found() {
    let (mut report, lines) = report();
    let pools = Pools::default();
    report.update([held("10.0.0.1", "u1"), held("10.0.0.2", "u1")].into(), &pools);
    assert!(lines().is_empty(), "one comparison proves nothing");
    report.update([held("10.0.0.1", "u1"), held("10.0.0.2", "u2"), held("fd00::1", "u1")].into(), &pools);
    assert_eq!(
        lines(),
        [r#"{pool="p",family="ipv4"} 1"#],
        "a difference about another pod or another address is a new difference"
    );
    report.update([held("fd00::1", "u1")].into(), &pools);
    assert_eq!(lines(), [r#"{pool="p",family="ipv6"} 1"#]);
}

#[test]
fn an_operator_that_no_longer_leads_exports_no_figures_and_starts_again() {
    let (mut report, lines) = report();
    let pools = Pools::default();
    let differences = || HashSet::from([held("10.0.0.1", "u1")]);
    report.update(differences(), &pools);
    report.update(differences(), &pools);
    assert_eq!(lines().len(), 1);
    report.reset();
    assert!(lines().is_empty(), "a standby exports nothing");
    report.update(differences(), &pools);
    assert!(lines().is_empty(), "the first comparison of a new leader proves nothing");
}
