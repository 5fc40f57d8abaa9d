//! The demand controller's state of one pool between two reconcile passes. This module does no I/O, and callers pass the current time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::claim_schedule::ClaimSchedule;
use crate::blocks::claim::{ClaimError, Supply};

/// How long a pod without an address counts towards the demand for blocks. The time begins when the agent sees that the pod was scheduled
/// to the node.
const EXPECTED_POD_TTL: Duration = Duration::from_secs(20);

/// The demand controller's state of one pool.
#[derive(Default)]
pub(super) struct PoolState {
    /// How many ADDs are waiting for an address of the pool.
    pub waiting: u32,
    /// How many claims in the pool are in flight.
    pub claiming: u32,
    /// When this node last released a block for other nodes because the pool had no free block.
    pub released_for_others: Option<Instant>,
    /// Why the last claim in the pool failed.
    pub last_error: Option<Arc<ClaimError>>,
    /// Whether an ADD began to wait since the last pass and must still be woken.
    pub unnotified: bool,
    /// A counter whose changes wake the waiting ADDs. It changes when a claim in the pool ends, when the outcome of a claim stays unknown,
    /// and when no claim can be tried.
    pub attempts: watch::Sender<u64>,
    expected: HashMap<String, Instant>,
    schedule: ClaimSchedule,
    /// Whether the outcome of a claim in flight is unknown, because the API server gave no clear answer.
    outcome_unknown: bool,
    /// How many blocks of the pool this node was releasing in the last pass.
    releasing: usize,
    /// Whether a release has ended while a claim was in flight. The claim may have missed the released block.
    released_during_claim: bool,
}

impl PoolState {
    /// Adds the UID of a pod that will need an address soon.
    pub(super) fn expect(&mut self, uid: String, now: Instant) {
        self.expected.insert(uid, now);
    }

    pub(super) fn expects(&self) -> bool {
        !self.expected.is_empty()
    }

    /// The number of expected pods without an address.
    pub(super) fn expected(&self) -> u32 {
        u32::try_from(self.expected.len()).unwrap_or(u32::MAX)
    }

    /// Removes expected pods that got an address, and those that got none within [`EXPECTED_POD_TTL`], for example because they use
    /// hostNetwork.
    pub(super) fn forget_expected(&mut self, served: &[String], now: Instant) {
        self.expected.retain(|uid, since| now.duration_since(*since) < EXPECTED_POD_TTL && !served.contains(uid));
    }

    /// Records the pool's status.
    pub(super) fn observe_status(&mut self, supply: Supply, resource_version: Option<&str>, now: Instant) {
        self.schedule.observe_status(supply, resource_version, now);
    }

    /// Records how many blocks of the pool this node is releasing. After the end of a release, the node may claim at once.
    pub(super) fn observe_releases(&mut self, releasing: usize, now: Instant) {
        if std::mem::replace(&mut self.releasing, releasing) > releasing {
            self.schedule.block_released(now);
            self.released_during_claim = self.claiming > 0;
        }
    }

    /// Whether the pool's status may be out of date, because several claims have failed since the status changed.
    pub(super) fn status_may_be_outdated(&self) -> bool {
        self.schedule.status_may_be_outdated()
    }

    /// How long to wait before a claim may be tried. Returns `None` if a claim may be tried now.
    pub(super) fn may_claim(&mut self, now: Instant) -> Option<Duration> {
        if self.claiming > 0 {
            return Some(EXPECTED_POD_TTL);
        }
        self.schedule.wait(now)
    }

    /// Whether a waiting ADD may soon get an address: a claim may soon end, or `blocks_coming` blocks soon enter service.
    pub(super) fn may_serve(&self, blocks_coming: usize) -> bool {
        !self.outcome_unknown && (self.claiming > 0 || blocks_coming > 0)
    }

    /// Wakes the ADDs that began to wait since the last pass. While a claim is in flight and may soon end, the end of this claim wakes the
    /// ADDs instead.
    pub(super) fn notify_waiting(&mut self) {
        if (self.claiming == 0 || self.outcome_unknown) && std::mem::take(&mut self.unnotified) {
            self.attempts.send_modify(|count| *count += 1);
        }
    }

    /// Records that the outcome of a claim in flight is unknown. Wakes the waiting ADDs, because the outcome may stay unknown for long.
    pub(super) fn claim_outcome_unknown(&mut self, error: ClaimError) {
        self.outcome_unknown = true;
        self.unnotified = false;
        self.last_error = Some(Arc::new(error));
        self.attempts.send_modify(|count| *count += 1);
    }

    /// Records that a claim has ended: it succeeded, or failed with `error`.
    pub(super) fn claim_ended(&mut self, error: Option<Arc<ClaimError>>, now: Instant) {
        self.outcome_unknown = false;
        self.unnotified = false;
        self.attempts.send_modify(|count| *count += 1);
        self.schedule.claim_ended(error.as_deref(), self.waiting > 0, now);
        if std::mem::take(&mut self.released_during_claim) {
            self.schedule.block_released(now);
        }
        self.last_error = error;
    }
}

#[cfg(test)]
mod tests;
