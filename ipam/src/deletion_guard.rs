//! Freeing only what two looks apart in time both found dead, and never much of everything at once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use crate::boot_time::BootTime;

/// A pass that would free fewer than this never stops.
pub const MIN_DELETIONS_TO_TRIP: usize = 5;

/// What earlier looks found suspect, and since when without a break.
#[derive(Clone, Debug)]
pub struct DeletionGuard<K> {
    suspect_since: HashMap<K, BootTime>,
}

/// What may be freed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionDecision<K> {
    /// Found suspect by two looks, or more, far enough apart. Look once more, live, before freeing each.
    pub free: Vec<K>,
    /// The pass would have freed too much, so it frees nothing: say so, raise the alert.
    pub tripped: Option<Breaker>,
}

/// A pass that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pass would have freed {would_free} of {population}, more than a tenth: nothing was freed; see why so many look unused"
)]
pub struct Breaker {
    /// How many it would have freed.
    pub would_free: usize,
    /// Of how many.
    pub population: usize,
}

impl Breaker {
    /// Stops a pass that would free more than 10 % of all, and at least five.
    pub fn of(would_free: usize, population: usize) -> Option<Breaker> {
        (would_free >= MIN_DELETIONS_TO_TRIP && would_free.saturating_mul(10) > population)
            .then_some(Breaker { would_free, population })
    }
}

impl<K> Default for DeletionGuard<K> {
    fn default() -> Self {
        Self { suspect_since: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> DeletionGuard<K> {
    /// Nothing looked at yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one look: the suspects among `population`. What is suspect no more is forgotten; what a look at least `apart`
    /// earlier and every one since found suspect is to be freed, unless that is more than 10 % of all and at least five.
    pub fn look(
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
            return DeletionDecision { tripped: Some(breaker), free: Vec::new() };
        }
        for key in &free {
            self.suspect_since.remove(key);
        }
        free.sort_unstable();
        DeletionDecision { free, tripped: None }
    }
}

#[cfg(test)]
mod tests;
