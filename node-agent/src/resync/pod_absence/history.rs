//! What earlier reads found absent, and since when without a break. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use bobbin_ipam::BootTime;

/// One period in which a Node is Ready without a break: the Node's UID, and when its condition last changed as the API server has it.
/// Compared for equality only, so the clock that wrote it does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadyPeriod(pub(super) String, pub(super) String);

/// The pods that were absent when last read.
#[derive(Debug)]
pub(super) struct Absences<K> {
    apart: Duration,
    known: HashMap<K, Absence>,
}

#[derive(Debug)]
struct Absence {
    first: BootTime,
    last: BootTime,
    ready: ReadyPeriod,
}

impl<K: Clone + Eq + Hash> Absences<K> {
    pub(super) fn new(apart: Duration) -> Self {
        Self { apart, known: HashMap::new() }
    }

    /// Forgets all that are asked about no more.
    pub(super) fn keep_only<'a>(&mut self, keys: impl Iterator<Item = &'a K>)
    where
        K: 'a,
    {
        let asked: HashSet<&K> = keys.collect();
        self.known.retain(|key, _| asked.contains(key));
    }

    /// Whether it is time to read: for the first time, or long enough after the last.
    pub(super) fn is_due(&self, key: &K, now: BootTime) -> bool {
        self.known.get(key).is_none_or(|absence| now.since(absence.last) >= self.apart)
    }

    /// The pod is there, or is there again.
    pub(super) fn forget(&mut self, key: &K) {
        self.known.remove(key);
    }

    /// The Node is not Ready: whatever was found before proves nothing.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// The pod is absent. True: so it was long enough ago, and the Node was Ready from then until now.
    pub(super) fn absent(&mut self, key: &K, ready: &ReadyPeriod, now: BootTime) -> bool {
        match self.known.get_mut(key) {
            Some(absence) if absence.ready == *ready => {
                absence.last = now;
                now.since(absence.first) >= self.apart
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

    const APART: Duration = Duration::from_mins(5);

    fn at(minutes: u64) -> BootTime {
        BootTime(Duration::from_mins(minutes))
    }

    fn since(time: &str) -> ReadyPeriod {
        ReadyPeriod("node-uid".to_owned(), time.to_owned())
    }

    #[test]
    fn two_reads_far_enough_apart_prove_that_a_pod_is_gone_and_one_does_not() {
        let mut absences = Absences::new(APART);
        assert!(absences.is_due(&1, at(0)));
        assert!(!absences.absent(&1, &since("10:00"), at(0)));
        assert!(!absences.is_due(&1, at(4)));
        assert!(!absences.absent(&1, &since("10:00"), at(4)));
        assert!(absences.absent(&1, &since("10:00"), at(9)));
    }

    #[test]
    fn a_node_that_was_not_ready_in_between_begins_anew() {
        let mut absences = Absences::new(APART);
        assert!(!absences.absent(&1, &since("10:00"), at(0)));
        assert!(!absences.absent(&1, &since("10:03"), at(5)), "Ready again, but not throughout");
        assert!(!absences.absent(&1, &since("10:03"), at(9)));
        assert!(absences.absent(&1, &since("10:03"), at(10)));
    }

    #[test]
    fn another_node_of_the_same_name_begins_anew() {
        let mut absences = Absences::new(APART);
        assert!(!absences.absent(&1, &since("10:00"), at(0)));
        assert!(!absences.absent(&1, &ReadyPeriod("other-uid".to_owned(), "10:00".to_owned()), at(5)));
    }

    #[test]
    fn a_node_found_not_ready_forgets_every_earlier_read() {
        let mut absences = Absences::new(APART);
        assert!(!absences.absent(&1, &since("10:00"), at(0)));
        absences.clear();
        assert!(!absences.absent(&1, &since("10:00"), at(5)));
    }

    #[test]
    fn a_pod_that_is_there_in_between_begins_anew() {
        let mut absences = Absences::new(APART);
        assert!(!absences.absent(&1, &since("10:00"), at(0)));
        absences.forget(&1);
        assert!(!absences.absent(&1, &since("10:00"), at(5)));
    }

    #[test]
    fn what_is_asked_about_no_more_is_forgotten() {
        let mut absences = Absences::new(APART);
        assert!(!absences.absent(&1, &since("10:00"), at(0)));
        assert!(!absences.absent(&2, &since("10:00"), at(0)));
        absences.keep_only([2].iter());
        assert!(!absences.absent(&1, &since("10:00"), at(5)));
        assert!(absences.absent(&2, &since("10:00"), at(5)));
    }

    #[test]
    fn a_proven_absence_is_read_again_only_after_the_same_time() {
        let mut absences = Absences::new(APART);
        assert!(!absences.absent(&1, &since("10:00"), at(0)));
        assert!(absences.absent(&1, &since("10:00"), at(5)));
        assert!(!absences.is_due(&1, at(6)));
        assert!(absences.is_due(&1, at(10)) && absences.absent(&1, &since("10:00"), at(10)));
    }
}
