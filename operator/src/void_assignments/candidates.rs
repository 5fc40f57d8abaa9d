//! Stores the assignments that may be void and the results of earlier checks, and decides which assignments are due for a
//! check. Pure.
//!
//! The pod of a void assignment may still run, because a node can lose its block while the pod runs. A deleted pod
//! object does not prove that the container has ended. So two checks must find the pod gone. Between them, the agent
//! has time to list its assignments once and to decide itself. If in doubt, the operator only counts the assignment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::SuspectAssignment;
use crate::denied_nodes::MAX_VOID_ASSIGNMENTS;
use crate::times::Times;

/// The operator repeats a failed check up to this many times per check interval.
const RETRIES_PER_INTERVAL: u32 = 10;

/// What the operator knows about one assignment that may be void.
#[derive(Clone, Debug)]
struct Candidate {
    suspect: SuspectAssignment,
    /// The time since which every observation has found the assignment suspect.
    since: Instant,
    /// Whether an earlier observation also found the assignment suspect.
    seen_before: bool,
    last_check: Option<Instant>,
    /// Whether the last check found that the assignment is void and that its pod does not have the address.
    pod_missing: bool,
    /// The UID of the assignment, and the time since which every check has found the assignment's pod gone.
    pod_gone: Option<(String, Instant)>,
}

impl Candidate {
    fn new(suspect: SuspectAssignment, now: Instant) -> Self {
        Self { suspect, since: now, seen_before: false, last_check: None, pod_missing: false, pod_gone: None }
    }

    /// Whether `other` is the same assignment, seen by a later observation. Ignores the owner of the block, because the
    /// owner may have changed between the observations.
    fn is_same(&self, other: &SuspectAssignment) -> bool {
        let known = &self.suspect;
        (&known.node, &known.pool, known.block) == (&other.node, &other.pool, other.block)
    }
}

/// All assignments that the last observation found suspect.
#[derive(Debug)]
pub(crate) struct Candidates {
    times: Times,
    /// The assignments by name.
    known: HashMap<String, Candidate>,
    /// For each node, the times at which the operator found forged assignments.
    forgeries: HashMap<Arc<str>, Vec<Instant>>,
}

impl Candidates {
    pub(crate) fn new(times: Times) -> Self {
        Self { times, known: HashMap::new(), forgeries: HashMap::new() }
    }

    /// Replaces the known assignments by `suspects`.
    pub(crate) fn observe(&mut self, suspects: Vec<SuspectAssignment>, now: Instant) {
        let mut before = std::mem::take(&mut self.known);
        for suspect in suspects {
            let candidate = match before.remove(&suspect.name).filter(|known| known.is_same(&suspect)) {
                Some(known) => Candidate { suspect, seen_before: true, ..known },
                None => Candidate::new(suspect, now),
            };
            self.known.insert(candidate.suspect.name.clone(), candidate);
        }
        let memory = self.times.forgery_memory();
        self.forgeries.retain(|_, found| {
            found.retain(|at| now.duration_since(*at) < memory);
            !found.is_empty()
        });
    }

    /// The names of the assignments that two observations found suspect. A single observation may be wrong, because one watch can be
    /// ahead of another.
    pub(crate) fn confirmed(&self) -> impl Iterator<Item = &str> {
        self.known.values().filter(|candidate| candidate.seen_before).map(|candidate| candidate.suspect.name.as_str())
    }

    /// Returns up to `max` assignments that are due for a check, the longest unchecked first. Notes the time of this check.
    ///
    /// The first check is due after [`Times::min_orphan_age`]. It is due at once if the address is not in the block, or if the
    /// node has more than [`MAX_VOID_ASSIGNMENTS`] suspect assignments.
    pub(crate) fn take_due(&mut self, max: usize, now: Instant) -> Vec<SuspectAssignment> {
        let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
        for candidate in self.known.values().filter(|candidate| candidate.seen_before) {
            *counts.entry(Arc::clone(&candidate.suspect.node)).or_default() += 1;
        }
        let times = self.times;
        let is_due = |candidate: &&mut Candidate| match candidate.last_check {
            Some(at) => now.duration_since(at) >= times.check_interval(),
            None => {
                candidate.suspect.outside
                    || counts.get(&candidate.suspect.node).is_some_and(|count| *count > MAX_VOID_ASSIGNMENTS)
                    || now.duration_since(candidate.since) >= times.min_orphan_age()
            }
        };
        let mut due: Vec<&mut Candidate> = self.known.values_mut().filter(is_due).collect();
        due.sort_by(|a, b| (a.last_check, &a.suspect.name).cmp(&(b.last_check, &b.suspect.name)));
        due.truncate(max);
        let taken = due.into_iter().map(|candidate| {
            candidate.last_check = Some(now);
            candidate.suspect.clone()
        });
        taken.collect()
    }

    /// Notes that a check failed. The assignment is due again sooner than after a successful check. Assignments that have been
    /// unchecked for longer still come first.
    pub(crate) fn retry(&mut self, name: &str, now: Instant) {
        let interval = self.times.check_interval();
        if let Some(candidate) = self.known.get_mut(name) {
            candidate.last_check = now.checked_sub(interval.saturating_sub(interval / RETRIES_PER_INTERVAL));
        }
    }

    /// Notes whether a check found that the assignment is void and that its pod does not have the address.
    pub(crate) fn note_pod_missing(&mut self, name: &str, pod_missing: bool) {
        if let Some(candidate) = self.known.get_mut(name) {
            candidate.pod_missing = pod_missing;
        }
    }

    /// Notes that a check found the assignment forged. Even after its deletion, the assignment counts against its node for a while.
    pub(crate) fn note_forged(&mut self, name: &str, now: Instant) {
        if let Some(candidate) = self.known.get_mut(name) {
            candidate.pod_missing = false;
            self.forgeries.entry(Arc::clone(&candidate.suspect.node)).or_default().push(now);
        }
    }

    /// Forgets the forged and void assignments of a node, because an administrator trusts the node again. Void assignments that still
    /// exist count again after their next check.
    pub(crate) fn forget_forgeries(&mut self, node: &str) {
        self.forgeries.remove(node);
        for candidate in self.known.values_mut().filter(|candidate| &*candidate.suspect.node == node) {
            candidate.pod_missing = false;
        }
    }

    /// For each node, the number of void assignments whose pod does not have the address. Forged assignments that the operator
    /// deleted recently also count.
    pub(crate) fn without_pod(&self, now: Instant) -> HashMap<Arc<str>, usize> {
        let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
        for candidate in self.known.values().filter(|candidate| candidate.pod_missing) {
            *counts.entry(Arc::clone(&candidate.suspect.node)).or_default() += 1;
        }
        for (node, found) in &self.forgeries {
            let recent = found.iter().filter(|at| now.duration_since(**at) < self.times.forgery_memory()).count();
            *counts.entry(Arc::clone(node)).or_default() += recent;
        }
        counts
    }

    /// Notes that a check found the pod gone. Returns true if the checks have found the pod gone for at least one check
    /// interval.
    pub(crate) fn note_pod_gone(&mut self, name: &str, uid: &str, now: Instant) -> bool {
        let interval = self.times.check_interval();
        let Some(candidate) = self.known.get_mut(name) else { return false };
        match &candidate.pod_gone {
            Some((known, first)) if known == uid => now.duration_since(*first) >= interval,
            Some(_) | None => {
                candidate.pod_gone = Some((uid.to_owned(), now));
                false
            }
        }
    }

    /// Notes that a check found the pod alive. Earlier checks that found the pod gone no longer count.
    pub(crate) fn note_pod_alive(&mut self, name: &str) {
        if let Some(candidate) = self.known.get_mut(name) {
            candidate.pod_gone = None;
        }
    }
}

#[cfg(test)]
mod tests;
