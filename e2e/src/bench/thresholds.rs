//! Defines the benchmark's thresholds, and checks whether a report meets each threshold.

use super::claims::NEW_POOL_ROW;
use super::report::{Report, Threshold};
use super::stages::Verb;
use super::{foreign_routes, stolen_token};
use crate::network::NetworkFault;

/// Thresholds that this benchmark can't measure. Each entry holds the threshold, and the reason why the benchmark can't
/// measure it.
pub const NOT_MEASURED: [(&str, &str); 5] = [
    (
        "150 pods on 3 kubelets become Ready in at most 1.0 times the time of ptp + host-local",
        "the measurement needs three kubelets, with Bobbin and with the reference plugins",
    ),
    (
        "1000 nodes with 250 pools (ten of them busy) have at most 8,000 idle blocks, and without load make at most 1 request a second",
        "the measurement needs an operator that works for 1000 Nodes",
    ),
    (
        "an idle agent makes at most 10 API calls an hour, and keeps each watch open for at least 5 minutes",
        "the measurement takes an hour",
    ),
    (
        "the operator needs at most 100 MiB for 1000 nodes and 50,000 assignments, and at most 300 MiB for 5000 nodes and 150,000 assignments",
        "the measurement needs an API server with the objects of such a cluster",
    ),
    (
        "faults cause no duplicate address, and 10 minutes after a fault no address is leaked",
        "`make test` runs the end-to-end tests, which check this",
    ),
];

/// Compares every measurement with its threshold, and adds the results to the report.
pub fn evaluate(report: &mut Report) {
    let mut thresholds = cni_thresholds(report);
    for family in ["IPv4", "IPv6"] {
        let [first, second] = ["first", "second"].map(|which| ours(report, &format!("{which} packet, {family}"), 50));
        let more = first.zip(second).map(|(first, second)| first - second);
        let name = format!("the first {family} packet after ADD takes at most 1 ms longer than the second packet");
        thresholds.push(limit(&name, more, 1.0, "ms", "neighbour resolution on the node"));
    }
    let size = report.plugin_bytes.map(|bytes| bytes as f64 / 1_048_576.0);
    thresholds.push(limit("the plugin's executable is at most 1 MiB", size, 1.0, "MiB", "the size of the executable"));
    let [plugin, nothing] = [ours(report, "plugin, /bin/true", 50), theirs(report, "plugin, /bin/true", 50)];
    thresholds.push(ratio(
        "the plugin runs at most 2 times as long as /bin/true",
        plugin,
        nothing,
        2.0,
        "exec of the plugin",
    ));
    for (verb, writes, reads) in &report.calls {
        thresholds.push(Threshold {
            name: format!("one {verb} makes 1 write and 0 reads at the API server"),
            seen: format!("{writes:.2} writes, {reads:.2} reads"),
            met: (writes - 1.0).abs() < 0.001 && *reads == 0.0,
            stage: "API calls other than the write of the assignment".to_owned(),
        });
    }
    for (fault, allowed, how, stage) in [
        (NetworkFault::None, 100.0, "", "the time from the start of the agent to its first successful ADD"),
        (NetworkFault::BlackHole, 500.0, " and a silent API server", "waiting for an API server that does not answer"),
    ] {
        let restarts = report.restarts.iter().find(|(known, _)| *known == fault);
        let seen = restarts.and_then(|(_, samples)| samples.percentile(50));
        let name = format!("with 250 pods{how}, the first ADD succeeds at most {allowed} ms after a restart");
        thresholds.push(limit(&name, seen, allowed, "ms", stage));
    }
    thresholds.extend(claim_thresholds(report));
    let memory = report.agent_kib.map(|kib| kib as f64 / 1024.0);
    thresholds.push(limit(
        "the agent uses at most 24 MiB of memory with 250 pods",
        memory,
        24.0,
        "MiB",
        "the agent's heap",
    ));
    report.thresholds = thresholds;
}

/// Compares how much the ADD times change after forgeries with how much they change without forgeries.
pub fn of_stolen_token(report: &Report) -> Threshold {
    let change = |row| Some(ours(report, row, 50)? / theirs(report, row, 50)?);
    let (attacked, control) = (change(stolen_token::ROW), change(stolen_token::CONTROL_ROW));
    let name = "40 forged assignments raise the p50 of ADD to at most 1.1 times the p50 without them";
    ratio(name, attacked, control, 1.1, "ADDs that skip the forged addresses")
}

/// Compares Bobbin's ADD and DEL with ADD and DEL of the reference plugins.
fn cni_thresholds(report: &Report) -> Vec<Threshold> {
    // Each entry holds the name, Bobbin's row and percentile, and the allowed ratio to the reference plugins' p50. The
    // last field holds a verb and a phase. If the threshold is missed, the report names the slowest stage of this verb
    // in this phase.
    let reference = [
        (
            "the p50 of ADD is at most 0.35 times the p50 of ptp + host-local",
            ("ADD IPv4", 50),
            0.35,
            (Verb::Add, "one by one, IPv4"),
        ),
        (
            "the p99 of ADD is at most 0.8 times the p50 of ptp + host-local",
            ("ADD IPv4", 99),
            0.8,
            (Verb::Add, "one by one, IPv4"),
        ),
        (
            "100 ADDs at once take at most 0.35 times as long as with ptp + host-local",
            ("100 ADDs at once, IPv4", 50),
            0.35,
            (Verb::Add, "at once, IPv4"),
        ),
        (
            "the first 100 ADDs after boot take at most 0.35 times as long as with ptp + host-local",
            ("100 ADDs at once, boot", 50),
            0.35,
            (Verb::Add, "at once, boot"),
        ),
        (
            "the p50 of DEL is at most 0.9 times the p50 of ptp + host-local",
            ("DEL IPv4", 50),
            0.9,
            (Verb::Del, "one by one, IPv4"),
        ),
        (
            "100 DELs at once take at most 0.3 times as long as with ptp + host-local",
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
    thresholds.push(ratio(
        "the p50 of a dual-stack ADD is at most 1.1 times the p50 of an IPv4 ADD",
        dual,
        single,
        1.1,
        &stage,
    ));
    let [here, elsewhere] = [ours, theirs].map(|samples| samples(report, foreign_routes::ROW, 50));
    let name =
        "while 5,000 node routes change, the p50 of ADD is at most 1.05 times the p50 while fabric routes change";
    thresholds.push(ratio(name, here, elsewhere, 1.05, "the agent's monitor of kernel notifications"));
    thresholds.push(of_stolen_token(report));
    thresholds.push(Threshold {
        name: "no call fails".to_owned(),
        seen: format!("{} errors", report.errors.len()),
        met: report.errors.is_empty(),
        stage: "see the errors above".to_owned(),
    });
    thresholds
}

/// The thresholds for a thousand simultaneous claims.
fn claim_thresholds(report: &Report) -> Vec<Threshold> {
    let row = "1000 claims, bare patches";
    let calls = |percent| report.claim_calls.as_ref().and_then(|calls| calls.percentile(percent));
    let mean = report.claim_calls.as_ref().map_or(0.0, super::claims::ClaimCalls::mean);
    let stage =
        format!("a claim makes {mean:.2} API calls on average; the remaining time of a claim is work on the node");
    let wrong = report.claim_calls.as_ref().map(|calls| calls.wrong as f64);
    let lost = "claims lost to another node";
    vec![
        ratio(
            "1000 claims at once take at most 1.3 times as long as 1000 bare patches",
            ours(report, row, 50),
            theirs(report, row, 50),
            1.3,
            &stage,
        ),
        limit("of 1000 claims at once, the p50 is at most 1 API call", calls(50), 1.0, "calls", lost),
        limit("of 1000 claims at once, the p99 is at most 3 API calls", calls(99), 3.0, "calls", lost),
        limit(
            "if 1000 nodes claim at once, no block goes to two nodes and no claim fails",
            wrong,
            0.0,
            "rounds",
            "see the errors above",
        ),
        limit(
            "if 1000 nodes claim at once from a new pool, each node has a block after at most 30 s",
            ours(report, NEW_POOL_ROW, 100),
            30_000.0,
            "ms",
            "claims lost to another node, or an operator that creates blocks too slowly",
        ),
    ]
}

fn ours(report: &Report, row: &str, percent: usize) -> Option<f64> {
    report.row(row)?.ours.percentile(percent)
}

fn theirs(report: &Report, row: &str, percent: usize) -> Option<f64> {
    report.row(row)?.reference.as_ref()?.percentile(percent)
}

/// Describes the slowest stage in a phase, for one verb and one percentile.
fn costliest(report: &Report, phase: &str, verb: Verb, percent: usize) -> String {
    let stages = report.phase(phase).map(|phase| phase.stages(verb, percent)).unwrap_or_default();
    stages.first().map_or("no stage was measured".to_owned(), |stage| {
        format!("the stage that takes longest (p{percent}): {stage}")
    })
}

fn ratio(name: &str, ours: Option<f64>, theirs: Option<f64>, allowed: f64, stage: &str) -> Threshold {
    let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
    limit(name, ratio, allowed, "times", stage)
}

fn limit(name: &str, seen: Option<f64>, allowed: f64, unit: &str, stage: &str) -> Threshold {
    Threshold {
        name: name.to_owned(),
        seen: seen.map_or("not measured".to_owned(), |seen| format!("{seen:.2}, and the limit is {allowed} {unit}")),
        met: seen.is_some_and(|seen| seen <= allowed),
        stage: stage.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    //! Tests thresholds at their limits.

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
        assert!(report.to_string().ends_with("bench: 0 rows, 22 thresholds, 1 met\n"), "{report}");
    }
}
