//! Decides when the node may claim the next block of a pool. This module does no I/O, and callers pass the current time.
//!
//! A node makes its first claim at once if the pool's status shows a free block. If the status shows none, or if the claim finds none, the
//! node waits. It waits for a random part of a duration, the spread. The spread is computed from the pool's status, so that the waiting
//! nodes together claim about as fast as the operator creates blocks. If the nodes far outnumber the free blocks, the nodes claim faster
//! than the operator creates blocks, because the spread has an upper limit.

use std::time::Duration;

use bobbin_api_client::{backoff, spread};
use tokio::time::Instant;

use crate::blocks::claim::{ClaimError, Supply};

/// About how long the operator needs to create more blocks and to show them in the pool's status. In this time, about as many nodes should
/// claim as there are free blocks.
const REFILL_TIME: Duration = Duration::from_secs(2);
/// The shortest and the longest spread if enough blocks for all nodes are free. Each further failed claim doubles the spread.
const RACE_SPREAD: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The upper limit of the spread if there are more nodes than free blocks: its first value and its largest value. Each further failed claim
/// doubles the limit, because a failed claim suggests that many nodes are waiting.
const CROWD_SPREAD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));
/// The limits of the spread if the status shows no free block. Each further failed claim doubles the lower limit, up to the upper limit.
/// The node claims even if the status shows no free block, because the status may be out of date.
const NO_BLOCK_SPREAD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));
/// A pool's status may be out of date if at least this many claims have failed since the status last changed.
const MAX_FAILURES_PER_STATUS: u32 = 2;
/// The first and the longest pause after a claim that found no suitable block, although the pool's status shows enough free ones. The free
/// blocks are still cooling down, or the status is out of date.
const LIST_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));
/// The first pause after a claim that failed for a reason other than a lack of free blocks.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after a failed claim, if an ADD is waiting and the reason of the failure is temporary. Temporary reasons: the API
/// server did not answer, the agent has not read its blocks yet, or a claimed block is not in service yet.
const MAX_WAITING_PAUSE: Duration = Duration::from_secs(3);
/// The longest pause after any other failed claim: no ADD is waiting, or the reason is not temporary. For example, the API server refused
/// the claim.
const MAX_ERROR_PAUSE: Duration = Duration::from_secs(30);

/// The wait of a node until its next claim.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// The node waits for a random part of the spread. At the time `since`, the fraction `left` of the spread remained. If the spread
    /// changes, the remaining time changes in proportion, so the waiting nodes stay evenly distributed.
    Turn { left: f64, since: Instant },
    /// The node does not claim before this time, whatever the spread is.
    Pause(Instant),
}

impl Wait {
    /// Whether this is a pause that ended more than [`REFILL_TIME`] ago. If so, and if the status shows no free block, the node waits
    /// like the other nodes instead of claiming at once.
    fn has_expired(self, now: Instant) -> bool {
        matches!(self, Wait::Pause(at) if now.saturating_duration_since(at) > REFILL_TIME)
    }
}

/// The schedule of the node's claims in one pool.
#[derive(Debug, Default)]
pub(super) struct ClaimSchedule {
    wait: Option<Wait>,
    /// How many claims have failed since the last success.
    failures: u32,
    /// How many claims have failed since the pool's status changed.
    failures_of_status: u32,
    supply: Supply,
    seen_version: Option<String>,
}

impl ClaimSchedule {
    /// Records the pool's status.
    pub(super) fn observe_status(&mut self, supply: Supply, version: Option<&str>, now: Instant) {
        if self.seen_version.as_deref() == version {
            return;
        }
        self.seen_version = version.map(ToOwned::to_owned);
        self.failures_of_status = 0;
        match self.wait {
            Some(Wait::Turn { left, since }) => {
                let passed = now.duration_since(since).as_secs_f64() / self.spread().as_secs_f64();
                self.wait = Some(Wait::Turn { left: (left - passed).max(0.0), since: now });
            }
            // The change of the pool may have removed the cause of the error, so shorten the pause.
            Some(Wait::Pause(at)) => self.wait = Some(Wait::Pause(at.min(now + spread(ERROR_PAUSE)))),
            None => {}
        }
        self.supply = supply;
    }

    /// How long to wait before a claim may be tried. Returns `None` if a claim may be tried now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        // If the pause has expired and the pool has no free block, don't claim at once. Other nodes may be waiting for the same blocks that
        // the operator is about to create.
        if self.wait.is_some_and(|wait| wait.has_expired(now)) {
            self.wait = None;
        }
        if self.wait.is_none() && self.supply.free == 0 && self.supply.nodes_without_block > 0 {
            self.wait = Some(turn(now));
        }
        let at = match self.wait? {
            Wait::Turn { left, since } => since + self.spread().mul_f64(left),
            Wait::Pause(at) => at,
        };
        at.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Lets the node claim at once during the next [`REFILL_TIME`], because a release of this node has ended or was cancelled. The pool's
    /// status may not show the released block as free yet.
    pub(super) fn block_released(&mut self, now: Instant) {
        self.wait = Some(Wait::Pause(now));
    }

    /// Whether the pool's status may be out of date, because several claims have failed since the status changed.
    pub(super) fn status_may_be_outdated(&self) -> bool {
        self.failures_of_status >= MAX_FAILURES_PER_STATUS
    }

    /// Records that a claim succeeded, or why it failed. `is_waiting` says whether an ADD is waiting.
    pub(super) fn claim_ended(&mut self, error: Option<&ClaimError>, is_waiting: bool, now: Instant) {
        let Some(error) = error else {
            (self.wait, self.failures, self.failures_of_status) = (None, 0, 0);
            return;
        };
        self.wait = Some(match error {
            ClaimError::Contended(_) => turn(now),
            ClaimError::PoolFull(_) if self.supply.free == 0 || !self.supply.has_block_for_each_node() => turn(now),
            ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_) => {
                Wait::Pause(now + backoff(self.failures, LIST_PAUSE.0, LIST_PAUSE.1))
            }
            ClaimError::Unreachable { .. } | ClaimError::OwnBlocksUnread(_) | ClaimError::NotInService { .. }
                if is_waiting =>
            {
                Wait::Pause(now + backoff(self.failures, ERROR_PAUSE, MAX_WAITING_PAUSE))
            }
            _ => Wait::Pause(now + backoff(self.failures, ERROR_PAUSE, MAX_ERROR_PAUSE)),
        });
        self.failures = self.failures.saturating_add(1);
        self.failures_of_status = self.failures_of_status.saturating_add(1);
    }

    /// The time over which the waiting nodes spread their claims.
    fn spread(&self) -> Duration {
        let Supply { free, nodes_without_block, .. } = self.supply;
        let doubled = |(base, cap): (Duration, Duration)| {
            base.saturating_mul(1 << self.failures.saturating_sub(1).min(20)).min(cap)
        };
        let fair = REFILL_TIME.mul_f64(nodes_without_block as f64 / free.max(1) as f64);
        match free {
            0 => fair.clamp(doubled(NO_BLOCK_SPREAD), NO_BLOCK_SPREAD.1),
            _ if !self.supply.has_block_for_each_node() => fair.min(doubled(CROWD_SPREAD)),
            _ => doubled(RACE_SPREAD),
        }
    }
}

/// A wait for a random part of the spread.
fn turn(now: Instant) -> Wait {
    Wait::Turn { left: spread(Duration::from_secs(1)).as_secs_f64(), since: now }
}

#[cfg(test)]
mod tests;
