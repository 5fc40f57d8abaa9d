//! Remembers which pods were absent at their last read, and since when they have been absent. This module does no I/O.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use bobbin_ipam::BootTime;

/// A period during which a Node stays Ready. The agent compares periods only for equality, so wrong clocks do no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadyPeriod {
    /// The UID of the Node.
    pub(super) node_uid: String,
    /// The `lastTransitionTime` of the Node's condition Ready.
    pub(super) since: String,
}

/// The candidates whose pods were absent at the last read.
#[derive(Debug)]
pub(super) struct AbsenceHistory<K> {
    min_absence: Duration,
    known: HashMap<K, Absence>,
}

#[derive(Debug)]
struct Absence {
    first: BootTime,
    last: BootTime,
    ready: ReadyPeriod,
}

impl<K: Clone + Eq + Hash> AbsenceHistory<K> {
    pub(super) fn new(min_absence: Duration) -> Self {
        Self { min_absence, known: HashMap::new() }
    }

    /// Forgets all candidates except those with these keys.
    pub(super) fn keep_only<'a>(&mut self, keys: impl Iterator<Item = &'a K>)
    where
        K: 'a,
    {
        let current: HashSet<&K> = keys.collect();
        self.known.retain(|key, _| current.contains(key));
    }

    /// Whether a candidate's pod must be read now. After a read that found the pod absent, the next read is due after `min_absence`.
    pub(super) fn is_due(&self, key: &K, now: BootTime) -> bool {
        self.known.get(key).is_none_or(|absence| now.since(absence.last) >= self.min_absence)
    }

    /// Forgets a candidate, because its pod is present.
    pub(super) fn forget(&mut self, key: &K) {
        self.known.remove(key);
    }

    /// Forgets all candidates, because the Node is not Ready and earlier reads prove nothing.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Records that a read found the pod absent. Returns true if a read at least `min_absence` ago also found it absent, and the Node has
    /// been Ready since then.
    pub(super) fn absent(&mut self, key: &K, ready: &ReadyPeriod, now: BootTime) -> bool {
        match self.known.get_mut(key) {
            Some(absence) if absence.ready == *ready => {
                absence.last = now;
                now.since(absence.first) >= self.min_absence
            }
            _ => {
                self.known.insert(key.clone(), Absence { first: now, last: now, ready: ready.clone() });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_ABSENCE: Duration = Duration::from_mins(5);

    fn at(minutes: u64) -> BootTime {
        BootTime(Duration::from_mins(minutes))
    }

    fn since(time: &str) -> ReadyPeriod {
        ReadyPeriod { node_uid: "node-uid".to_owned(), since: time.to_owned() }
    }

    #[test]
    fn two_reads_far_enough_apart_prove_that_a_pod_is_gone_and_one_does_not() {
        let mut history = AbsenceHistory::new(MIN_ABSENCE);
        assert!(history.is_due(&1, at(0)));
        assert!(!history.absent(&1, &since("10:00"), at(0)));
        assert!(!history.is_due(&1, at(4)));
        assert!(!history.absent(&1, &since("10:00"), at(4)));
        assert!(history.absent(&1, &since("10:00"), at(9)));
    }

    #[test]
    fn a_node_that_was_not_ready_in_between_restarts_the_proof() {
        let mut history = AbsenceHistory::new(MIN_ABSENCE);
        assert!(!history.absent(&1, &since("10:00"), at(0)));
        assert!(!history.absent(&1, &since("10:03"), at(5)), "the Node was not Ready between the two reads");
        assert!(!history.absent(&1, &since("10:03"), at(9)));
        assert!(history.absent(&1, &since("10:03"), at(10)));
    }

    #[test]
    fn another_node_of_the_same_name_restarts_the_proof() {
        let mut history = AbsenceHistory::new(MIN_ABSENCE);
        assert!(!history.absent(&1, &since("10:00"), at(0)));
        assert!(!history.absent(
            &1,
            &ReadyPeriod { node_uid: "other-uid".to_owned(), since: "10:00".to_owned() },
            at(5)
        ));
    }

    #[test]
    fn a_node_that_is_not_ready_voids_every_earlier_read() {
        let mut history = AbsenceHistory::new(MIN_ABSENCE);
        assert!(!history.absent(&1, &since("10:00"), at(0)));
        history.clear();
        assert!(!history.absent(&1, &since("10:00"), at(5)));
    }

    #[test]
    fn a_pod_that_is_present_in_between_restarts_the_proof() {
        let mut history = AbsenceHistory::new(MIN_ABSENCE);
        assert!(!history.absent(&1, &since("10:00"), at(0)));
        history.forget(&1);
        assert!(!history.absent(&1, &since("10:00"), at(5)));
    }

    #[test]
    fn a_pod_that_is_no_candidate_any_more_is_forgotten() {
        let mut history = AbsenceHistory::new(MIN_ABSENCE);
        assert!(!history.absent(&1, &since("10:00"), at(0)));
        assert!(!history.absent(&2, &since("10:00"), at(0)));
        history.keep_only([2].iter());
        assert!(!history.absent(&1, &since("10:00"), at(5)));
        assert!(history.absent(&2, &since("10:00"), at(5)));
    }

    #[test]
    fn after_a_proven_absence_the_next_read_is_due_after_the_same_time() {
        let mut history = AbsenceHistory::new(MIN_ABSENCE);
        assert!(!history.absent(&1, &since("10:00"), at(0)));
        assert!(history.absent(&1, &since("10:00"), at(5)));
        assert!(!history.is_due(&1, at(6)));
        assert!(history.is_due(&1, at(10)) && history.absent(&1, &since("10:00"), at(10)));
    }
}
