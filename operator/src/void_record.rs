//! Records of a node that does not have their block: which of them are looked at closely. Pure; `sweep` asks.
//!
//! Such a record is void (design §9), or it is of a pod whose node has lost the block and keeps the pod alive. So it goes only
//! on positive evidence, found live: its Node is gone, or its pod is. In doubt it stays, and is counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::facts::Loose;

/// A record must have been void for this long: a claim, or the news of one, may be under way.
pub(crate) const APART: Duration = Duration::from_mins(1);

/// Since when each record has been void without a break.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    since: HashMap<Loose, Instant>,
}

impl Suspects {
    /// Takes a look. Returns the records that have been void since an earlier look, long enough ago.
    pub(crate) fn look(&mut self, loose: Vec<Loose>, now: Instant) -> Vec<Loose> {
        let before = std::mem::take(&mut self.since);
        let since = |record: &Loose| before.get(record).copied().unwrap_or(now);
        self.since =
            loose.into_iter().map(|record| (since(&record), record)).map(|(since, record)| (record, since)).collect();
        let mut old: Vec<Loose> = self
            .since
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= APART)
            .map(|(record, _)| record.clone())
            .collect();
        old.sort();
        old
    }
}

#[cfg(test)]
mod tests {
    use bobbin_addressing::BlockRange;

    use super::*;

    fn loose(name: &str) -> Loose {
        let range = BlockRange::parse(Some("10.0.0.1/32"), None).expect("it is a range");
        Loose { name: name.into(), range, node: "n1".into(), owner: None, block_is_there: true }
    }

    #[test]
    fn a_record_is_looked_at_closely_only_after_two_looks_far_enough_apart() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        assert_eq!(suspects.look(vec![loose("a")], start), []);
        assert_eq!(suspects.look(vec![loose("a"), loose("b")], start + APART), [loose("a")]);
        assert_eq!(suspects.look(vec![loose("b")], start + APART * 2), [loose("b")]);
        assert_eq!(suspects.look(vec![loose("a")], start + APART * 3), []);
    }
}
