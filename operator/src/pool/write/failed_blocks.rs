//! Blocks whose last write failed. After a failed write, the operator waits before it writes to that block again, but goes
//! on with the pool's other blocks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bobbin_api_client::backoff;
use bobbin_crds::name;

use crate::context::Context;
use crate::pool::error::ReconcileError;

/// How long the operator waits after the first failed write to a block before it writes to this block again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a refused write.
const MAX_REFUSED_RETRY: Duration = Duration::from_mins(1);
/// The longest wait after a failure that is no refusal. The wait is short, so that the operator writes to blocks soon after
/// an outage of the API server.
const MAX_OUTAGE_RETRY: Duration = Duration::from_secs(5);
/// How long the operator remembers a failure after the wait has ended. If the next write to the block fails within this
/// time, the next wait is longer.
const FORGET_AFTER: Duration = Duration::from_mins(2);

/// The results of the writes to several blocks, each with the index of its block.
pub(in crate::pool) struct BlockWrites<T = ()> {
    pub(in crate::pool) done: Vec<(u64, T)>,
    pub(in crate::pool) failed: Vec<(u64, ReconcileError)>,
}

impl<T> FromIterator<(u64, Result<T, ReconcileError>)> for BlockWrites<T> {
    fn from_iter<I: IntoIterator<Item = (u64, Result<T, ReconcileError>)>>(results: I) -> Self {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (index, result) in results {
            match result {
                Ok(value) => done.push((index, value)),
                Err(error) => failed.push((index, error)),
            }
        }
        Self { done, failed }
    }
}

impl<T> BlockWrites<T> {
    /// A copy of the first error, if a write failed.
    pub(in crate::pool) fn first_error(&self) -> Option<ReconcileError> {
        self.failed.first().map(|(_, error)| error.clone())
    }
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    count: u32,
    not_before: Instant,
}

/// The blocks of one pool whose last write failed, by index.
#[derive(Debug, Default)]
pub(in crate::pool) struct FailedBlocks(BTreeMap<u64, Failure>);

impl FailedBlocks {
    /// Records the results, logs the failures, and returns the values of the successful writes. Logs the first failure of a
    /// block at level `warn`, and further failures at level `debug`.
    pub(in crate::pool) fn record<T>(&mut self, context: &Context, pool: &str, writes: BlockWrites<T>) -> Vec<T> {
        let now = Instant::now();
        for (index, error) in writes.failed {
            context.metrics.block_failures.inc();
            let (count, wait) = self.note(index, error.is_refusal(), now);
            let block = name::block(pool, index);
            if count == 0 {
                tracing::warn!(block, %error, ?wait, "the operator could not write to a block; it continues with the pool's other blocks and retries this block later");
            } else {
                tracing::debug!(block, %error, ?wait, count, "another write of the operator to a block failed");
            }
        }
        let done = writes.done.into_iter();
        done.map(|(index, value)| {
            self.0.remove(&index);
            value
        })
        .collect()
    }

    /// Whether the operator may write to this block now.
    pub(in crate::pool) fn may_write(&self, index: u64, now: Instant) -> bool {
        self.0.get(&index).is_none_or(|failure| failure.not_before <= now)
    }

    /// The blocks that still wait after a failed write.
    pub(in crate::pool) fn waiting(&self, now: Instant) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |(_, failure)| failure.not_before > now).map(|(index, _)| *index)
    }

    /// The time until the operator may write to the next waiting block. Forgets old failures.
    pub(in crate::pool) fn next_retry(&mut self, now: Instant) -> Option<Duration> {
        self.0.retain(|_, failure| failure.not_before + FORGET_AFTER > now);
        self.0
            .values()
            .map(|failure| failure.not_before.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
            .min()
    }

    /// Notes a failure. Returns the number of earlier failures, and the wait until the next write.
    fn note(&mut self, index: u64, is_refusal: bool, now: Instant) -> (u32, Duration) {
        let failure = self.0.entry(index).or_insert(Failure { count: 0, not_before: now });
        let wait = backoff(failure.count, RETRY, if is_refusal { MAX_REFUSED_RETRY } else { MAX_OUTAGE_RETRY });
        let before = failure.count;
        failure.count = before.saturating_add(1);
        failure.not_before = now + wait;
        (before, wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_block_waits_longer_after_each_failure_and_other_blocks_do_not_wait() {
        let (mut blocks, mut now) = (FailedBlocks::default(), Instant::now());
        let mut last = Duration::ZERO;
        for round in 0..8 {
            let (before, wait) = blocks.note(7, true, now);
            assert_eq!(before, round);
            assert!(!blocks.may_write(7, now) && blocks.may_write(8, now));
            assert_eq!(blocks.waiting(now).collect::<Vec<_>>(), [7]);
            assert_eq!(blocks.next_retry(now), Some(wait));
            assert!(wait >= last / 2 && wait <= MAX_REFUSED_RETRY, "{wait:?} in round {round}");
            last = wait;
            now += wait;
            assert!(blocks.may_write(7, now) && blocks.next_retry(now).is_none());
        }
        assert!(last >= MAX_REFUSED_RETRY / 2);
        // After an outage of the API server, the operator does not wait long.
        assert!(blocks.note(7, false, now).1 <= MAX_OUTAGE_RETRY);
        now += MAX_OUTAGE_RETRY + FORGET_AFTER;
        blocks.next_retry(now);
        assert!(blocks.0.is_empty());
    }
}
