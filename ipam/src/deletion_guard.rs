//! Guards deletions: only what two observations found unused is deleted, and never too much at once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use crate::boot_time::BootTime;

/// A pass with fewer deletions than this is never stopped.
pub const MIN_DELETIONS_TO_TRIP: usize = 5;

/// The suspects of earlier observations, and since when every observation has found each of them.
#[derive(Clone, Debug)]
pub struct DeletionGuard<K> {
    suspect_since: HashMap<K, BootTime>,
}

/// What may be deleted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionDecision<K> {
    /// Suspects of at least two observations that are far enough apart. Check each by a live read before you delete it.
    pub to_delete: Vec<K>,
    /// The pass would have deleted too much, so it deletes nothing. Report this to the user.
    pub tripped: Option<Breaker>,
}

/// A pass that the breaker stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing was deleted, because {would_delete} of {population} look unused, which is more than a tenth; find out why before you delete them"
)]
pub struct Breaker {
    /// How many it would have deleted.
    pub would_delete: usize,
    /// How many objects there are.
    pub population: usize,
}

impl Breaker {
    /// Stops a pass that would delete at least five objects and more than 10 % of all.
    pub fn of(would_delete: usize, population: usize) -> Option<Breaker> {
        (would_delete >= MIN_DELETIONS_TO_TRIP && would_delete.saturating_mul(10) > population)
            .then_some(Breaker { would_delete, population })
    }
}

impl<K> Default for DeletionGuard<K> {
    fn default() -> Self {
        Self { suspect_since: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> DeletionGuard<K> {
    /// A guard without observations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes one observation: the suspects among `population` objects.
    ///
    /// A suspect may be deleted if an observation at least `apart` ago and every later one found it. The breaker trips if
    /// these are at least five and more than 10 % of all.
    pub fn observe(
        &mut self,
        suspects: &HashSet<K>,
        population: usize,
        now: BootTime,
        apart: Duration,
    ) -> DeletionDecision<K> {
        self.suspect_since.retain(|key, _| suspects.contains(key));
        let mut free: Vec<K> = Vec::new();
        for key in suspects {
            match self.suspect_since.get(key) {
                Some(since) if now.since(*since) >= apart => free.push(key.clone()),
                Some(_) => {}
                None => {
                    self.suspect_since.insert(key.clone(), now);
                }
            }
        }
        if let Some(breaker) = Breaker::of(free.len(), population) {
            return DeletionDecision { tripped: Some(breaker), to_delete: Vec::new() };
        }
        for key in &free {
            self.suspect_since.remove(key);
        }
        free.sort_unstable();
        DeletionDecision { to_delete: free, tripped: None }
    }
}

#[cfg(test)]
mod tests;
