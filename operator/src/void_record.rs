//! Records of a node that does not have their block: which of them are looked at closely. Pure; `sweep` asks.
//!
//! Such a record is void, or it is of a pod whose node has lost the block and keeps the pod alive. So it goes only
//! on positive evidence, found live: its Node is gone, or its pod is. While the Node is there its agent has the first word: a
//! pod object that is gone says nothing of the container, so it must have been seen gone twice, as far apart as the agent's own
//! looks. In doubt it stays, and is counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::facts::Loose;

/// A record must have been void for this long: a claim, or the news of one, may be under way.
pub(crate) const APART: Duration = Duration::from_mins(1);
/// Between two close looks at one record: the time in which its agent lists its own records once.
pub(crate) const LOOKS_APART: Duration = Duration::from_mins(15);

/// What is known of one void record.
#[derive(Clone, Debug)]
struct Suspect {
    /// Void without a break since then.
    since: Instant,
    /// The last close look.
    looked: Option<Instant>,
    /// The record's UID, and when its pod was first seen gone, by every close look since.
    pod_gone: Option<(String, Instant)>,
}

/// Since when each record has been void without a break, and what the close looks found.
#[derive(Debug, Default)]
pub(crate) struct Suspects(HashMap<Loose, Suspect>);

impl Suspects {
    /// Takes a look at everything. Returns how many records have been void since an earlier look, long enough ago.
    pub(crate) fn look(&mut self, loose: Vec<Loose>, now: Instant) -> usize {
        let mut before = std::mem::take(&mut self.0);
        let fresh = Suspect { since: now, looked: None, pod_gone: None };
        self.0 = loose
            .into_iter()
            .map(|record| {
                let known = before.remove(&record).unwrap_or_else(|| fresh.clone());
                (record, known)
            })
            .collect();
        self.0.values().filter(|suspect| is_old(suspect, now)).count()
    }

    /// The old ones that are due for a close look, at most so many; those that wait longest come first. They count as looked at.
    pub(crate) fn due(&mut self, most: usize, now: Instant) -> Vec<Loose> {
        let mut due: Vec<(Option<Instant>, Loose)> = self
            .0
            .iter()
            .filter(|(_, suspect)| is_old(suspect, now))
            .filter(|(_, suspect)| suspect.looked.is_none_or(|at| now.duration_since(at) >= LOOKS_APART))
            .map(|(record, suspect)| (suspect.looked, record.clone()))
            .collect();
        due.sort();
        due.truncate(most);
        for (_, record) in &due {
            if let Some(suspect) = self.0.get_mut(record) {
                suspect.looked = Some(now);
            }
        }
        due.into_iter().map(|(_, record)| record).collect()
    }

    /// A close look found the pod of the record with that UID gone. Whether one far enough before has found the same.
    pub(crate) fn pod_is_gone(&mut self, record: &Loose, uid: &str, now: Instant) -> bool {
        let Some(suspect) = self.0.get_mut(record) else { return false };
        match &suspect.pod_gone {
            Some((known, first)) if known == uid => now.duration_since(*first) >= LOOKS_APART,
            Some(_) | None => {
                suspect.pod_gone = Some((uid.to_owned(), now));
                false
            }
        }
    }

    /// A close look found something else: what was seen before counts no more.
    pub(crate) fn pod_lives(&mut self, record: &Loose) {
        if let Some(suspect) = self.0.get_mut(record) {
            suspect.pod_gone = None;
        }
    }
}

fn is_old(suspect: &Suspect, now: Instant) -> bool {
    now.duration_since(suspect.since) >= APART
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::BlockRange;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const JUST_BEFORE: Duration = Duration::from_secs(LOOKS_APART.as_secs() - 1);

    fn loose(name: &str) -> Loose {
        let range = BlockRange::parse(Some("10.0.0.1/32"), None).expect("it is a range");
        Loose {
            name: name.into(),
            range,
            node: "n1".into(),
            pool: "p".into(),
            block: 0,
            owner: None,
            block_is_there: true,
        }
    }

    #[test]
    fn a_record_is_looked_at_closely_only_after_two_looks_far_enough_apart() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        let mut look = |names: &[&str], now| {
            let old = suspects.look(names.iter().map(|name| loose(name)).collect(), now);
            (old, suspects.due(20, now))
        };
        assert_eq!(look(&["a"], start), (0, vec![]));
        assert_eq!(look(&["a", "b"], start + APART), (1, vec![loose("a")]));
        assert_eq!(look(&["b"], start + APART * 2), (1, vec![loose("b")]));
        assert_eq!(look(&["a"], start + APART * 3), (0, vec![]));
    }

    #[test]
    fn close_looks_at_one_record_are_far_apart_and_none_is_passed_over_for_ever() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        let all = || vec![loose("a"), loose("b"), loose("c")];
        suspects.look(all(), start);
        let now = start + APART;
        assert_eq!(suspects.due(2, now), [loose("a"), loose("b")]);
        assert_eq!(suspects.due(2, now + SECOND), [loose("c")]);
        assert_eq!(suspects.due(2, now + JUST_BEFORE), []);
        assert_eq!(suspects.due(9, now + LOOKS_APART), [loose("a"), loose("b")]);
        assert_eq!(suspects.look(all(), now + LOOKS_APART), 3);
    }

    #[test]
    fn a_pod_counts_as_gone_only_when_two_looks_far_apart_found_the_same_record_without_it() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        let a = loose("a");
        suspects.look(vec![a.clone()], start);
        assert!(!suspects.pod_is_gone(&a, "u1", start));
        assert!(!suspects.pod_is_gone(&a, "u1", start + JUST_BEFORE));
        assert!(suspects.pod_is_gone(&a, "u1", start + LOOKS_APART));
        // Another record of the same name, a pod seen alive in between, and a record that was in order in between: all anew.
        assert!(!suspects.pod_is_gone(&a, "u2", start + LOOKS_APART));
        suspects.pod_lives(&a);
        assert!(!suspects.pod_is_gone(&a, "u2", start + LOOKS_APART * 2));
        suspects.look(vec![], start + LOOKS_APART * 3);
        assert!(!suspects.pod_is_gone(&a, "u2", start + LOOKS_APART * 3));
        suspects.look(vec![a.clone()], start + LOOKS_APART * 3);
        assert!(!suspects.pod_is_gone(&a, "u2", start + LOOKS_APART * 3));
    }
}
