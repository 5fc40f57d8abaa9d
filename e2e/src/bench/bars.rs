//! The bars, and whether what was measured holds them. Pure: from a report to its judgement.

use super::report::{Bar, Report, word};
use crate::proxy::Weather;

/// Judges everything that was measured.
pub fn judge(report: &mut Report) {
    let add_stage = stage(report, "ADD", "ADD IPv4");
    let del_stage = stage(report, "DEL", "DEL IPv4");
    let ours = |name: &str, percent| report.row(name)?.ours.percentile(percent);
    let theirs = |name: &str, percent| report.row(name)?.reference.as_ref()?.percentile(percent);
    let mut bars = vec![
        ratio(
            "ADD: p50 at most half of the reference's",
            ours("ADD IPv4", 50),
            theirs("ADD IPv4", 50),
            0.5,
            &add_stage,
        ),
        ratio("ADD: p99 at most the reference's p50", ours("ADD IPv4", 99), theirs("ADD IPv4", 50), 1.0, &add_stage),
        ratio(
            "100 ADDs at once: at most half",
            ours("100 ADDs at once, IPv4", 50),
            theirs("100 ADDs at once, IPv4", 50),
            0.5,
            &add_stage,
        ),
        Bar {
            name: "no call fails".to_owned(),
            seen: format!("{} failures", report.errors.len()),
            holds: report.errors.is_empty(),
            stage: "see the errors".to_owned(),
        },
        ratio("DEL: p50 at most the reference's", ours("DEL IPv4", 50), theirs("DEL IPv4", 50), 1.0, &del_stage),
        ratio(
            "100 DELs at once: at most half",
            ours("100 DELs at once, IPv4", 50),
            theirs("100 DELs at once, IPv4", 50),
            0.5,
            &del_stage,
        ),
        ratio("ADD dual stack: at most 1.2 of IPv4", ours("ADD dual", 50), ours("ADD IPv4", 50), 1.2, &add_stage),
        ratio(
            "shim: at most twice /bin/true",
            ours("shim, against /bin/true", 50),
            theirs("shim, against /bin/true", 50),
            2.0,
            "exec of the shim",
        ),
    ];
    for family in ["IPv4", "IPv6"] {
        let (first, second) =
            (ours(&format!("first packet, {family}"), 50), ours(&format!("second packet, {family}"), 50));
        let more = first.zip(second).map(|(first, second)| first - second);
        bars.push(limit(
            &format!("first packet, {family}: at most 1 ms more"),
            more,
            1.0,
            "ms",
            "resolving a neighbour",
        ));
    }
    bars.push(limit(
        "shim: at most 1 MiB",
        report.shim_bytes.map(|bytes| bytes as f64 / 1_048_576.0),
        1.0,
        "MiB",
        "its size",
    ));
    for (verb, writes, reads) in &report.calls {
        bars.push(Bar {
            name: format!("{verb}: 1 API write, 0 reads"),
            seen: format!("{writes:.2} writes, {reads:.2} reads"),
            holds: (writes - 1.0).abs() < 0.001 && *reads == 0.0,
            stage: "calls beside the record's".to_owned(),
        });
    }
    bars.push(limit("idle agent: at most 10 API calls an hour", report.idle_calls, 10.0, "calls", "a poll"));
    bars.push(limit(
        "agent: at most 30 MiB with 250 pods",
        report.agent_kib.map(|kib| kib as f64 / 1024.0),
        30.0,
        "MiB",
        "its heap",
    ));
    for (weather, samples) in &report.restarts {
        let stage = if *weather == Weather::Healthy {
            "start to serving"
        } else {
            "waiting for an API server that does not answer"
        };
        let name = format!("restart, API {}: first ADD within 1 s", word(*weather));
        bars.push(limit(&name, samples.percentile(50).map(|millis| millis / 1000.0), 1.0, "s", stage));
    }
    report.bars = bars;
}

fn ratio(name: &str, ours: Option<f64>, theirs: Option<f64>, allowed: f64, stage: &str) -> Bar {
    let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
    limit(name, ratio, allowed, "times", stage)
}

fn limit(name: &str, seen: Option<f64>, allowed: f64, unit: &str, stage: &str) -> Bar {
    Bar {
        name: name.to_owned(),
        seen: seen.map_or("not measured".to_owned(), |seen| format!("{seen:.2} of {allowed} {unit}")),
        holds: seen.is_some_and(|seen| seen <= allowed),
        stage: stage.to_owned(),
    }
}

/// Where the time of a verb goes: what is seen from outside, against the agent's own stages.
fn stage(report: &Report, verb: &str, row: &str) -> String {
    let seen = report.row(row).and_then(|row| row.ours.percentile(50)).unwrap_or_default();
    let parts: Vec<String> = report
        .stages
        .iter()
        .filter(|stage| stage.name.starts_with(verb) || verb == "ADD" && stage.name.starts_with("of that"))
        .map(ToString::to_string)
        .collect();
    format!("one {verb} takes {seen:.2} ms from outside: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    //! Bars at their limits.

    use super::*;

    #[test]
    fn a_bar_holds_at_its_limit_and_not_without_a_measurement() {
        assert!(limit("", Some(1.0), 1.0, "", "").holds);
        assert!(!limit("", Some(1.01), 1.0, "", "").holds);
        assert!(!limit("", None, 1.0, "", "").holds);
        assert!(ratio("", Some(1.0), Some(2.0), 0.5, "").holds);
    }

    #[test]
    fn an_empty_report_holds_only_that_nothing_failed() {
        let mut report = Report::default();
        judge(&mut report);
        let held: Vec<&str> = report.bars.iter().filter(|bar| bar.holds).map(|bar| bar.name.as_str()).collect();
        assert_eq!(held, ["no call fails"]);
        assert!(report.to_string().ends_with("bench: 0 rows, 13 bars, 1 hold\n"), "{report}");
    }
}
