//! Proves by live reads that a pod is gone. Two reads at different times must find no pod with the pod's UID. The Node must have been Ready
//! from the first read to the second. A pod that can't be read counts as present.

mod history;
mod live_reads;

use std::hash::Hash;
use std::time::Duration;

use bobbin_ipam::BootTime;
use kube::Client;

use crate::state::PodRef;
use history::AbsenceHistory;
use live_reads::{NodeAnswer, PodAnswer};

/// How many pods one check may read. The next check reads the remaining pods.
const MAX_READS: usize = 32;

/// An attachment or an assignment whose pod may be gone.
#[derive(Clone, Debug)]
pub struct Candidate<K> {
    /// Identifies the candidate.
    pub key: K,
    /// The candidate's pod. If its namespace, name or UID is missing, the pod's absence can't be proven.
    pub pod: PodRef,
    /// Whether the agent knows that the API server has had a pod with this UID. The value is false for a static pod, because its mirror pod
    /// has another UID.
    pub seen: bool,
}

/// Remembers earlier reads of pods. Each tracker serves one kind of candidate.
#[derive(Debug)]
pub struct PodAbsenceTracker<K> {
    node_name: String,
    absences: AbsenceHistory<K>,
}

impl<K: Clone + Eq + Hash> PodAbsenceTracker<K> {
    /// Creates a tracker without earlier reads. `min_absence` is the minimum time between the two reads that prove a pod's absence.
    pub fn new(node_name: &str, min_absence: Duration) -> PodAbsenceTracker<K> {
        PodAbsenceTracker { node_name: node_name.to_owned(), absences: AbsenceHistory::new(min_absence) }
    }

    /// Reads the pods of the candidates. Returns the candidates whose pods are proven gone. A later check may return the same candidates
    /// again. Each candidate costs a read, so callers should pass only candidates that look abandoned.
    ///
    /// Before the caller deletes a candidate, it must apply the breaker and check that the candidate has not changed.
    pub async fn check(&mut self, client: &Client, candidates: &[Candidate<K>], now: BootTime) -> Vec<K> {
        self.absences.keep_only(candidates.iter().map(|candidate| &candidate.key));
        let can_be_proven = |candidate: &&Candidate<K>| {
            let pod = &candidate.pod;
            candidate.seen && !pod.namespace.is_empty() && !pod.name.is_empty() && !pod.uid.is_empty()
        };
        let due: Vec<&Candidate<K>> = candidates
            .iter()
            .filter(can_be_proven)
            .filter(|candidate| self.absences.is_due(&candidate.key, now))
            .take(MAX_READS)
            .collect();
        if due.is_empty() {
            return Vec::new();
        }
        let ready = match live_reads::read_node(client, &self.node_name).await {
            NodeAnswer::Ready(period) => period,
            NodeAnswer::NotReady => {
                self.absences.clear();
                return Vec::new();
            }
            NodeAnswer::Unreadable => return Vec::new(),
        };
        let mut gone = Vec::new();
        for Candidate { key, pod, .. } in due {
            match live_reads::read_pod(client, pod).await {
                PodAnswer::Present => self.absences.forget(key),
                PodAnswer::Absent => {
                    if self.absences.absent(key, &ready, now) {
                        gone.push(key.clone());
                    }
                }
                // Stop here, because the reads of the remaining pods would probably fail as well.
                PodAnswer::Unreadable => break,
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests;
