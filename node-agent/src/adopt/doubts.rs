//! Which own blocks are to be read, and when next. Pure but for the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use bobbin_apiserver::backoff;
use tokio::time::Instant;

/// A block that the watch shows and the ledger lacks may be one that is just claimed or given back: it is read after this.
const SETTLE: Duration = Duration::from_secs(3);
/// What could not be settled is tried again, ever more rarely, at least so often.
const RARELY: Duration = Duration::from_secs(20);

/// What is in doubt. As long as something is, [`Doubts::due`] says when it is to be read.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Pools, by block.
    blocks: BTreeMap<String, String>,
    /// All own blocks are to be listed.
    all: bool,
    at: Option<Instant>,
    failures: u32,
}

impl Doubts {
    /// When to settle; `None`: nothing is in doubt.
    pub(super) fn due(&self) -> Option<Instant> {
        self.at
    }

    /// Whose this block is is not certain.
    pub(super) fn one(&mut self, name: &str, pool: &str) {
        self.blocks.insert(name.to_owned(), pool.to_owned());
        self.arm();
    }

    /// Which blocks are ours is not certain.
    pub(super) fn all(&mut self) {
        self.all = true;
        self.arm();
    }

    /// Takes what is to be settled now. Call [`Doubts::settled`] when that was tried.
    pub(super) fn take(&mut self) -> (BTreeMap<String, String>, bool) {
        self.at = None;
        (std::mem::take(&mut self.blocks), std::mem::take(&mut self.all))
    }

    /// Nothing of what was taken could be settled.
    pub(super) fn again(&mut self, blocks: BTreeMap<String, String>, all: bool) {
        self.blocks.extend(blocks);
        self.all |= all;
        self.arm();
    }

    /// What was taken was tried; what was put back by then is tried again later.
    pub(super) fn settled(&mut self) {
        if self.blocks.is_empty() && !self.all {
            (self.at, self.failures) = (None, 0);
        } else {
            self.at = Some(Instant::now() + backoff(self.failures, Duration::from_secs(1), RARELY));
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn arm(&mut self) {
        self.at.get_or_insert_with(|| Instant::now() + SETTLE);
    }
}

#[cfg(test)]
mod tests;
