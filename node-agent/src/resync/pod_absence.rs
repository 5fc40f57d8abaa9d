//! Which pods are gone, by live reads: twice, some time apart, the API server has no pod of that UID, and this agent's Node was Ready
//! from the first read to the last. What could not be read counts as there.

mod history;
mod read;

use std::hash::Hash;
use std::time::Duration;

use bobbin_ipam::BootTime;
use kube::Client;

use crate::state::PodRef;
use history::Absences;
use read::{NodeAnswer, PodAnswer};

/// Reads in one look; the others follow in the next.
const MAX_READS: usize = 32;

/// Something whose pod may be gone.
#[derive(Clone, Debug)]
pub struct Candidate<K> {
    /// What is asked about.
    pub key: K,
    /// Its pod. Without a name, a namespace or a UID nothing can be known of it.
    pub pod: PodRef,
    /// Whether the API server once showed this agent a pod of that UID. A static pod's UID never appears there.
    pub seen: bool,
}

/// Remembers earlier looks. One for each kind of thing that is asked about.
#[derive(Debug)]
pub struct PodGone<K> {
    node_name: String,
    absences: Absences<K>,
}

impl<K: Clone + Eq + Hash> PodGone<K> {
    /// Nothing looked at yet. `apart` is the time between the two reads that prove that a pod is gone, and between any two reads of one
    /// pod.
    pub fn new(node_name: &str, apart: Duration) -> PodGone<K> {
        PodGone { node_name: node_name.to_owned(), absences: Absences::new(apart) }
    }

    /// Takes one look. Returns the candidates whose pod this look proved gone; each is told again after another read if it is still a
    /// candidate then. Only what looks abandoned should be a candidate, for each costs a read.
    ///
    /// The caller applies the breaker, and looks once more whether the candidate is still the same.
    pub async fn look(&mut self, client: &Client, candidates: &[Candidate<K>], now: BootTime) -> Vec<K> {
        self.absences.keep_only(candidates.iter().map(|candidate| &candidate.key));
        let can_be_known = |candidate: &&Candidate<K>| {
            let pod = &candidate.pod;
            candidate.seen && !pod.namespace.is_empty() && !pod.name.is_empty() && !pod.uid.is_empty()
        };
        let due: Vec<&Candidate<K>> = candidates
            .iter()
            .filter(can_be_known)
            .filter(|candidate| self.absences.is_due(&candidate.key, now))
            .take(MAX_READS)
            .collect();
        if due.is_empty() {
            return Vec::new();
        }
        let ready = match read::node(client, &self.node_name).await {
            NodeAnswer::Ready(period) => period,
            NodeAnswer::NotReady => {
                self.absences.clear();
                return Vec::new();
            }
            NodeAnswer::Unreadable => return Vec::new(),
        };
        let mut gone = Vec::new();
        for Candidate { key, pod, .. } in due {
            match read::pod(client, pod).await {
                PodAnswer::Present => self.absences.forget(key),
                PodAnswer::Absent => {
                    if self.absences.absent(key, &ready, now) {
                        gone.push(key.clone());
                    }
                }
                // The others would most likely wait for their deadline as well.
                PodAnswer::Unreadable => break,
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests;
