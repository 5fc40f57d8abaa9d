//! Orphaned assignments that may be void: which assignments to check by live reads, and what earlier checks found. Pure.
//!
//! The node of an orphaned assignment may have lost the block while the pod still runs. A deleted pod object does not prove
//! that the container has ended. So two live checks, far enough apart for the agent to list its assignments once, must find
//! the pod gone. In doubt, the operator keeps the assignment and counts it in a metric.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cache::OrphanedAssignment;

/// How long an assignment must be orphaned before its first check. For a younger orphan, the operator may not have seen
/// the claim of the block yet.
pub(crate) const MIN_ORPHAN_AGE: Duration = Duration::from_mins(1);
/// The time between two checks of one assignment. In that time each agent lists its own assignments at least once.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_mins(15);

/// What the operator knows about one orphaned assignment.
#[derive(Clone, Debug)]
struct Candidate {
    /// Since when every observation has found the assignment orphaned.
    since: Instant,
    last_check: Option<Instant>,
    /// The UID of the assignment, and since when every check has found the assignment's pod gone.
    pod_gone: Option<(String, Instant)>,
}

impl Candidate {
    fn is_old(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= MIN_ORPHAN_AGE
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_old(now) && self.last_check.is_none_or(|at| now.duration_since(at) >= CHECK_INTERVAL)
    }
}

/// All assignments that the last observation found orphaned.
#[derive(Debug, Default)]
pub(crate) struct Candidates(HashMap<OrphanedAssignment, Candidate>);

impl Candidates {
    /// Replaces the known orphans with `orphans`. Returns how many of these assignments have been orphaned for at least
    /// [`MIN_ORPHAN_AGE`].
    pub(crate) fn observe(&mut self, orphans: Vec<OrphanedAssignment>, now: Instant) -> usize {
        let mut before = std::mem::take(&mut self.0);
        let new = Candidate { since: now, last_check: None, pod_gone: None };
        self.0 = orphans
            .into_iter()
            .map(|orphan| {
                let known = before.remove(&orphan).unwrap_or_else(|| new.clone());
                (orphan, known)
            })
            .collect();
        self.0.values().filter(|candidate| candidate.is_old(now)).count()
    }

    /// Returns up to `max` orphans that are due for a check, the longest unchecked first, and notes the time of the check.
    pub(crate) fn take_due(&mut self, max: usize, now: Instant) -> Vec<OrphanedAssignment> {
        let due = self.0.iter().filter(|(_, candidate)| candidate.is_due(now));
        let mut due: Vec<_> = due.map(|(orphan, candidate)| (candidate.last_check, orphan.clone())).collect();
        due.sort();
        due.truncate(max);
        for (_, orphan) in &due {
            if let Some(candidate) = self.0.get_mut(orphan) {
                candidate.last_check = Some(now);
            }
        }
        due.into_iter().map(|(_, orphan)| orphan).collect()
    }

    /// Notes that a check found the pod gone. Returns whether a check at least [`CHECK_INTERVAL`] earlier also found the pod
    /// gone.
    pub(crate) fn note_pod_gone(&mut self, orphan: &OrphanedAssignment, uid: &str, now: Instant) -> bool {
        let Some(candidate) = self.0.get_mut(orphan) else { return false };
        match &candidate.pod_gone {
            Some((known, first)) if known == uid => now.duration_since(*first) >= CHECK_INTERVAL,
            Some(_) | None => {
                candidate.pod_gone = Some((uid.to_owned(), now));
                false
            }
        }
    }

    /// Notes that a check found the pod alive. Earlier checks of this assignment no longer count.
    pub(crate) fn note_pod_alive(&mut self, orphan: &OrphanedAssignment) {
        if let Some(candidate) = self.0.get_mut(orphan) {
            candidate.pod_gone = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::BlockRange;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const JUST_BEFORE: Duration = Duration::from_secs(CHECK_INTERVAL.as_secs() - 1);

    fn orphan(name: &str) -> OrphanedAssignment {
        let range = BlockRange::parse(Some("10.0.0.1/32"), None).expect("it is a range");
        OrphanedAssignment {
            name: name.into(),
            range,
            node: "n1".into(),
            pool: "p".into(),
            block: 0,
            owner: None,
            block_exists: true,
        }
    }

    #[test]
    fn an_assignment_is_checked_only_after_it_was_orphaned_for_a_minute() {
        let (mut candidates, start) = (Candidates::default(), Instant::now());
        let mut pass = |names: &[&str], now| {
            let count = candidates.observe(names.iter().map(|name| orphan(name)).collect(), now);
            (count, candidates.take_due(20, now))
        };
        assert_eq!(pass(&["a"], start), (0, vec![]));
        assert_eq!(pass(&["a", "b"], start + MIN_ORPHAN_AGE), (1, vec![orphan("a")]));
        assert_eq!(pass(&["b"], start + MIN_ORPHAN_AGE * 2), (1, vec![orphan("b")]));
        assert_eq!(pass(&["a"], start + MIN_ORPHAN_AGE * 3), (0, vec![]));
    }

    #[test]
    fn every_orphan_is_checked_once_per_interval_although_a_pass_is_limited() {
        let (mut candidates, start) = (Candidates::default(), Instant::now());
        let all = || vec![orphan("a"), orphan("b"), orphan("c")];
        candidates.observe(all(), start);
        let now = start + MIN_ORPHAN_AGE;
        assert_eq!(candidates.take_due(2, now), [orphan("a"), orphan("b")]);
        assert_eq!(candidates.take_due(2, now + SECOND), [orphan("c")]);
        assert_eq!(candidates.take_due(2, now + JUST_BEFORE), []);
        assert_eq!(candidates.take_due(9, now + CHECK_INTERVAL), [orphan("a"), orphan("b")]);
        assert_eq!(candidates.observe(all(), now + CHECK_INTERVAL), 3);
    }

    #[test]
    fn a_pod_counts_as_gone_only_when_two_checks_of_the_same_assignment_agree() {
        let (mut candidates, start) = (Candidates::default(), Instant::now());
        let a = orphan("a");
        candidates.observe(vec![a.clone()], start);
        assert!(!candidates.note_pod_gone(&a, "u1", start));
        assert!(!candidates.note_pod_gone(&a, "u1", start + JUST_BEFORE));
        assert!(candidates.note_pod_gone(&a, "u1", start + CHECK_INTERVAL));
        // Earlier evidence no longer counts after a new assignment with the same name, a living pod, or a pass without the
        // orphan.
        assert!(!candidates.note_pod_gone(&a, "u2", start + CHECK_INTERVAL));
        candidates.note_pod_alive(&a);
        assert!(!candidates.note_pod_gone(&a, "u2", start + CHECK_INTERVAL * 2));
        candidates.observe(vec![], start + CHECK_INTERVAL * 3);
        assert!(!candidates.note_pod_gone(&a, "u2", start + CHECK_INTERVAL * 3));
        candidates.observe(vec![a.clone()], start + CHECK_INTERVAL * 3);
        assert!(!candidates.note_pod_gone(&a, "u2", start + CHECK_INTERVAL * 3));
    }
}
