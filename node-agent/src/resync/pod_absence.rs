//! Proves by live reads that a pod is gone. Two reads at different times find no pod with its UID, and the Node was Ready all the time
//! between them. A pod that can't be read counts as present.

mod history;
mod live_reads;

use std::hash::Hash;
use std::time::Duration;

use bobbin_ipam::BootTime;
use kube::Client;

use crate::state::PodRef;
use history::AbsenceHistory;
use live_reads::{NodeAnswer, PodAnswer};

/// Pod reads per check; the other pods follow in the next check.
const MAX_READS: usize = 32;

/// Something whose pod may be gone.
#[derive(Clone, Debug)]
pub struct Candidate<K> {
    /// Identifies the candidate.
    pub key: K,
    /// Its pod. Without namespace, name and UID its absence can't be proven.
    pub pod: PodRef,
    /// The API server once showed this agent a pod with that UID. It never shows the UID of a static pod.
    pub seen: bool,
}

/// Remembers the earlier reads of one kind of candidates.
#[derive(Debug)]
pub struct PodAbsenceTracker<K> {
    node_name: String,
    absences: AbsenceHistory<K>,
}

impl<K: Clone + Eq + Hash> PodAbsenceTracker<K> {
    /// Nothing read yet. `min_absence` is the least time between the two reads that prove an absence, and between any two reads of a pod.
    pub fn new(node_name: &str, min_absence: Duration) -> PodAbsenceTracker<K> {
        PodAbsenceTracker { node_name: node_name.to_owned(), absences: AbsenceHistory::new(min_absence) }
    }

    /// Reads the pods of the candidates. Returns those whose pod is proven gone; a later check returns them again. Each candidate costs
    /// a read, so callers pass only those that look abandoned.
    ///
    /// The caller applies the breaker, and checks again that the candidate is still the same.
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
                // The other reads would most likely time out as well.
                PodAnswer::Unreadable => break,
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests;
