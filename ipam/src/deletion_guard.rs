//! Guards deletions. A pass deletes an object only after two observations have found the object unused. A pass that
//! would delete too many objects deletes none.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use crate::boot_time::BootTime;

/// The breaker stops a pass only if the pass would delete at least this many objects.
pub const MIN_DELETIONS_TO_TRIP: usize = 5;

/// Remembers the suspects, which are objects that look unused. For each suspect, the guard stores when an observation
/// first found it unused. If an observation finds a suspect in use, the guard forgets the suspect.
#[derive(Clone, Debug)]
pub struct DeletionGuard<K> {
    suspect_since: HashMap<K, BootTime>,
}

/// The objects that a pass may delete now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionDecision<K> {
    /// The suspects that may be deleted, because observations found them unused for long enough. Before the deletion,
    /// the caller checks each suspect again.
    pub to_delete: Vec<K>,
    /// Set if the breaker stopped the pass, because the pass would delete too many objects. Then the pass deletes
    /// nothing, and the caller reports the breaker to the user.
    pub tripped: Option<Breaker>,
}

/// The breaker stopped a pass, because the pass would have deleted too many objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing was deleted, because {would_delete} of {population} objects look unused, which is more than a tenth; find out why before you delete them"
)]
pub struct Breaker {
    /// How many objects the pass would have deleted.
    pub would_delete: usize,
    /// How many objects exist in total.
    pub population: usize,
}

impl Breaker {
    /// Returns a breaker if the pass would delete at least five objects and more than 10 % of all objects. Otherwise,
    /// returns `None`, and the pass may continue.
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
    /// Creates a guard without observations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records an observation of `population` objects, which found that the `suspects` look unused. Returns the
    /// suspects to delete.
    ///
    /// A suspect may be deleted if it was first found unused at least the time `apart` ago, and is still unused. The
    /// breaker stops the pass if the pass would delete at least five suspects and more than 10 % of all objects.
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
