//! The benchmark's thresholds, and the check whether a report meets each of them.

use super::report::{Report, Threshold};
use super::stages::Verb;
use super::{foreign_routes, stolen_token};
use crate::network::NetworkFault;

/// Thresholds that this benchmark can't measure. The second text of each entry says what the measurement needs.
pub const NOT_MEASURED: [(&str, &str); 5] = [
    (
        "150 pods on 3 kubelets, create to Ready: at most 1.0 of the time of ptp + host-local",
        "needs three kubelets, with Bobbin and with the reference plugins",
    ),
    (
        "1000 nodes, 250 pools, ten busy: at most 8,000 idle blocks, 1 request a second when idle",
        "needs an operator that works for 1000 Nodes",
    ),
    (
        "agent, idle: at most 10 API calls an hour, each watch stays open for at least 5 minutes",
        "needs a run of an hour",
    ),
    (
        "operator: at most 100 MiB at 1000 nodes and 50,000 assignments, 300 MiB at 5000 and 150,000",
        "needs an API server with the objects of such a cluster",
    ),
    (
        "faults: 0 duplicates, and 0 leaked addresses 10 minutes after the fault",
        "the end-to-end tests check this: make test",
    ),
];

/// Compares every measurement with its threshold, and adds the results to the report.
pub fn evaluate(report: &mut Report) {
    let mut thresholds = cni_thresholds(report);
    for family in ["IPv4", "IPv6"] {
        let [first, second] = ["first", "second"].map(|which| ours(report, &format!("{which} packet, {family}"), 50));
        let more = first.zip(second).map(|(first, second)| first - second);
        let name = format!("first packet after ADD, {family}: at most 1 ms more than the second packet");
        thresholds.push(limit(&name, more, 1.0, "ms", "the node resolves a neighbour"));
    }
    let size = report.plugin_bytes.map(|bytes| bytes as f64 / 1_048_576.0);
    thresholds.push(limit("plugin: at most 1 MiB", size, 1.0, "MiB", "the size of the executable"));
    let [plugin, nothing] = [ours(report, "plugin, /bin/true", 50), theirs(report, "plugin, /bin/true", 50)];
    thresholds.push(ratio(
        "plugin, start to exit: at most 2 times /bin/true",
        plugin,
        nothing,
        2.0,
        "exec of the plugin",
    ));
    for (verb, writes, reads) in &report.calls {
        thresholds.push(Threshold {
            name: format!("API calls of one {verb}: 1 write, 0 reads"),
            seen: format!("{writes:.2} writes, {reads:.2} reads"),
            met: (writes - 1.0).abs() < 0.001 && *reads == 0.0,
            stage: "API calls other than the write of the assignment".to_owned(),
        });
    }
    for (fault, allowed, how, stage) in [
        (NetworkFault::None, 100.0, "", "from exec of the agent to its first successful ADD"),
        (NetworkFault::BlackHole, 500.0, ", API server silent", "waiting for an API server that does not answer"),
    ] {
        let restarts = report.restarts.iter().find(|(known, _)| *known == fault);
        let seen = restarts.and_then(|(_, samples)| samples.percentile(50));
        let name = format!("restart to the first successful ADD, 250 pods{how}: at most {allowed} ms");
        thresholds.push(limit(&name, seen, allowed, "ms", stage));
    }
    thresholds.extend(claim_thresholds(report));
    let memory = report.agent_kib.map(|kib| kib as f64 / 1024.0);
    thresholds.push(limit("agent: at most 24 MiB at 250 pods", memory, 24.0, "MiB", "the agent's heap"));
    report.thresholds = thresholds;
}

/// Compares ADD and DEL of Bobbin with the reference plugins.
fn cni_thresholds(report: &Report) -> Vec<Threshold> {
    // The fields of an entry: name; row and percentile of Bobbin; allowed ratio to the reference's p50; verb and phase
    // of the stage to report.
    let reference = [
        (
            "ADD: p50 at most 0.35 of the p50 of ptp + host-local",
            ("ADD IPv4", 50),
            0.35,
            (Verb::Add, "one by one, IPv4"),
        ),
        ("ADD: p99 at most 0.8 of the p50 of ptp + host-local", ("ADD IPv4", 99), 0.8, (Verb::Add, "one by one, IPv4")),
        (
            "100 ADDs at once: at most 0.35 of the time of ptp + host-local",
            ("100 ADDs at once, IPv4", 50),
            0.35,
            (Verb::Add, "at once, IPv4"),
        ),
        (
            "100 ADDs at once, first after boot: at most 0.35 of the time of ptp + host-local",
            ("100 ADDs at once, boot", 50),
            0.35,
            (Verb::Add, "at once, boot"),
        ),
        ("DEL: p50 at most 0.9 of the p50 of ptp + host-local", ("DEL IPv4", 50), 0.9, (Verb::Del, "one by one, IPv4")),
        (
            "100 DELs at once: at most 0.3 of the time of ptp + host-local",
            ("100 DELs at once, IPv4", 50),
            0.3,
            (Verb::Del, "at once, IPv4"),
        ),
    ];
    let mut thresholds: Vec<Threshold> = reference
        .into_iter()
        .map(|(name, (row, percent), allowed, (verb, phase))| {
            let stage = costliest(report, phase, verb, percent);
            ratio(name, ours(report, row, percent), theirs(report, row, 50), allowed, &stage)
        })
        .collect();
    let stage = costliest(report, "one by one, dual", Verb::Add, 50);
    let [dual, single] = ["ADD dual", "ADD IPv4"].map(|row| ours(report, row, 50));
    thresholds.push(ratio("dual-stack ADD: p50 at most 1.1 of the p50 of an IPv4 ADD", dual, single, 1.1, &stage));
    let [here, elsewhere] = [ours, theirs].map(|samples| samples(report, foreign_routes::ROW, 50));
    let name = "ADD while 5,000 node routes change: p50 at most 1.05 of ADD while fabric routes change";
    thresholds.push(ratio(name, here, elsewhere, 1.05, "the agent's monitor of kernel notices"));
    let [after, before] = [ours, theirs].map(|samples| samples(report, stolen_token::ROW, 50));
    let name = "ADD after 40 forged assignments of a stolen token: p50 at most 1.1 of ADD before";
    thresholds.push(ratio(name, after, before, 1.1, "ADDs that pass over the forged addresses"));
    thresholds.push(Threshold {
        name: "no call fails".to_owned(),
        seen: format!("{} errors", report.errors.len()),
        met: report.errors.is_empty(),
        stage: "see the errors above".to_owned(),
    });
    thresholds
}

/// The thresholds of a thousand concurrent claims.
fn claim_thresholds(report: &Report) -> Vec<Threshold> {
    let row = "1000 claims, bare patches";
    let calls = |percent| report.claim_calls.as_ref().and_then(|calls| calls.percentile(percent));
    let mean = report.claim_calls.as_ref().map_or(0.0, super::claims::ClaimCalls::mean);
    let stage = format!("{mean:.2} API calls per claim on average; the rest of the time is work on the node");
    let wrong = report.claim_calls.as_ref().map(|calls| calls.wrong as f64);
    let lost = "claims lost to another node";
    vec![
        ratio(
            "1000 nodes claim at once: at most 1.3 times 1000 bare patches",
            ours(report, row, 50),
            theirs(report, row, 50),
            1.3,
            &stage,
        ),
        limit("1000 nodes claim at once: p50 at most 1 call", calls(50), 1.0, "calls", lost),
        limit("1000 nodes claim at once: p99 at most 3 calls", calls(99), 3.0, "calls", lost),
        limit(
            "1000 nodes claim at once: no block goes to two nodes, no claim fails",
            wrong,
            0.0,
            "rounds",
            "see the errors above",
        ),
    ]
}

fn ours(report: &Report, row: &str, percent: usize) -> Option<f64> {
    report.row(row)?.ours.percentile(percent)
}

fn theirs(report: &Report, row: &str, percent: usize) -> Option<f64> {
    report.row(row)?.reference.as_ref()?.percentile(percent)
}

/// The costliest stage of a verb's calls at a percentile, in the phase with this name.
fn costliest(report: &Report, phase: &str, verb: Verb, percent: usize) -> String {
    let stages = report.phase(phase).map(|phase| phase.stages(verb, percent)).unwrap_or_default();
    stages.first().map_or("no stage was measured".to_owned(), |stage| format!("most of the time (p{percent}): {stage}"))
}

fn ratio(name: &str, ours: Option<f64>, theirs: Option<f64>, allowed: f64, stage: &str) -> Threshold {
    let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
    limit(name, ratio, allowed, "times", stage)
}

fn limit(name: &str, seen: Option<f64>, allowed: f64, unit: &str, stage: &str) -> Threshold {
    Threshold {
        name: name.to_owned(),
        seen: seen.map_or("not measured".to_owned(), |seen| format!("{seen:.2} of {allowed} {unit}")),
        met: seen.is_some_and(|seen| seen <= allowed),
        stage: stage.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    //! Tests of thresholds at their limits.

    use super::*;

    #[test]
    fn a_threshold_is_met_at_its_limit_and_not_without_a_measurement() {
        assert!(limit("", Some(1.0), 1.0, "", "").met);
        assert!(!limit("", Some(1.01), 1.0, "", "").met);
        assert!(!limit("", None, 1.0, "", "").met);
        assert!(ratio("", Some(1.0), Some(2.0), 0.5, "").met);
    }

    #[test]
    fn an_empty_report_meets_only_that_nothing_failed() {
        let mut report = Report::default();
        evaluate(&mut report);
        let held: Vec<&str> = report
            .thresholds
            .iter()
            .filter(|threshold| threshold.met)
            .map(|threshold| threshold.name.as_str())
            .collect();
        assert_eq!(held, ["no call fails"]);
        assert!(report.to_string().ends_with("bench: 0 rows, 21 thresholds, 1 met\n"), "{report}");
    }
}
