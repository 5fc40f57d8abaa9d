//! Finds nodes that claim further blocks of a pool although they exceed their maximum, or although the pool does not admit
//! them. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::ClaimsBeyond;

/// The blocks of a node that owns more blocks of a pool than the pool allows.
#[derive(Debug)]
struct Beyond {
    since: Instant,
    /// Whether the grace period that began at `since` was over at the last observation.
    grace_is_over: bool,
    /// The blocks that the node had at the last observation.
    blocks: BTreeSet<u64>,
}

/// The nodes that own more blocks of a pool than the pool allows. The key is the node and the pool.
#[derive(Debug, Default)]
pub(super) struct ClaimTracker(HashMap<(Arc<str>, Arc<str>), Beyond>);

impl ClaimTracker {
    /// Compares the claims with those of the previous observation. Returns the nodes that have claimed a further block
    /// after their grace period, each with the reason.
    pub(super) fn observe(
        &mut self,
        claims: Vec<ClaimsBeyond>,
        now: Instant,
        grace: Duration,
    ) -> Vec<(Arc<str>, String)> {
        let mut before = std::mem::take(&mut self.0);
        let mut offences = Vec::new();
        for ClaimsBeyond { node, pool, blocks, why } in claims {
            let key = (node, pool);
            let known = before.remove(&key);
            let further =
                known.as_ref().filter(|known| known.grace_is_over).map(|known| blocks.difference(&known.blocks));
            let further = further.map_or(0, Iterator::count);
            if further > 0 {
                offences.push((
                    Arc::clone(&key.0),
                    format!("the node claimed {further} further blocks of pool {}, although {why}", key.1),
                ));
            }
            let since = known.map_or(now, |known| known.since);
            self.0.insert(key, Beyond { since, grace_is_over: now.duration_since(since) >= grace, blocks });
        }
        offences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_mins(1);

    fn beyond(blocks: &[u64]) -> Vec<ClaimsBeyond> {
        let blocks = blocks.iter().copied().collect();
        vec![ClaimsBeyond { node: "n1".into(), pool: "p".into(), blocks, why: "why".into() }]
    }

    #[test]
    fn only_a_further_claim_after_the_grace_is_an_offence() {
        let (mut tracker, start) = (ClaimTracker::default(), Instant::now());
        let mut pass = |blocks: &[u64], seconds| {
            let claims = if blocks.is_empty() { Vec::new() } else { beyond(blocks) };
            tracker.observe(claims, start + Duration::from_secs(seconds), GRACE).len()
        };
        assert_eq!(pass(&[1, 2], 0), 0);
        assert_eq!(pass(&[1, 2, 3], 59), 0);
        // The node may have claimed block 4 before the grace period was over at second 60.
        assert_eq!(pass(&[1, 2, 3, 4], 61), 0);
        assert_eq!(pass(&[1, 2, 3], 70), 0);
        assert_eq!(pass(&[1, 2, 4], 80), 1);
        // At second 90, the node has no blocks beyond its maximum. So its next excess begins a new grace period.
        assert_eq!(pass(&[], 90), 0);
        assert_eq!(pass(&[1, 2, 5], 100), 0);
        assert_eq!(pass(&[1, 2, 5, 6], 110), 0);
    }
}
