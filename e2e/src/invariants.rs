//! The invariant checker reads the state of a whole cluster from outside. It describes each contradiction of an
//! invariant in one sentence.
//!
//! [`collect`] reads API objects, kernels, checkpoints and the pods' namespaces. [`compare`] applies the rules, and is
//! pure. A check in the middle of a test uses [`never_allowed`]. A check after a test's changes uses [`await_none`],
//! which waits until the checker finds nothing.

mod collect;
mod finding;
mod rules;
mod snapshot;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use collect::{MachineSource, Watched, collect};
pub use finding::{Finding, Kind};
pub use rules::compare;
pub use snapshot::Snapshot;

/// The time between two snapshots.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The findings that two snapshots in a row show, and that are not allowed even for a moment.
///
/// A snapshot reads its sources one after another. So one snapshot shows two holders if an address moves from the first
/// holder to the second during the snapshot. But an attachment never gets a lost address back. So if two snapshots in a
/// row show the same two holders, both held the address at the same time.
pub async fn never_allowed(watched: &impl Watched) -> Vec<Finding> {
    let never = |snapshot: &Snapshot| -> Vec<Finding> {
        compare(snapshot).into_iter().filter(|finding| finding.kind.is_never_allowed()).collect()
    };
    let first = never(&collect(watched).await);
    if first.is_empty() {
        return first;
    }
    let second = never(&collect(watched).await);
    first.into_iter().filter(|finding| second.contains(finding)).collect()
}

/// Waits until a snapshot has no finding. If two snapshots in a row show a finding that is never allowed, fails at
/// once. At the deadline, fails with all findings of the last snapshot.
pub async fn await_none(watched: &impl Watched, within: Duration) -> Result<()> {
    let start = Instant::now();
    let mut before: Vec<Finding> = Vec::new();
    loop {
        let findings = compare(&collect(watched).await);
        if findings.is_empty() {
            return Ok(());
        }
        let never = |one: &&Finding| one.kind.is_never_allowed() && before.contains(one);
        let never: Vec<Finding> = findings.iter().filter(never).cloned().collect();
        if !never.is_empty() {
            bail!("these findings are never allowed:\n{}", lines(&never));
        }
        if start.elapsed() > within {
            bail!("after {} s the cluster is still inconsistent:\n{}", within.as_secs(), lines(&findings));
        }
        before = findings;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The findings, one per line.
pub fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("  {finding}")).collect::<Vec<_>>().join("\n")
}
