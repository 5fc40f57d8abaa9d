//! The demand controller's state of one pool between two reconcile passes. It does no I/O, and callers pass the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::backoff;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::blocks::claim::ClaimError;

/// How long a pod that was scheduled to the node, but has no address yet, counts towards the demand.
const EXPECTED_POD_TTL: Duration = Duration::from_secs(20);

/// The demand controller's state of one pool.
#[derive(Default)]
pub(super) struct PoolState {
    /// How many ADDs wait for an address of the pool.
    pub waiting: u32,
    /// How many claims of blocks of the pool are in flight.
    pub claiming: u32,
    /// When this node last released a block for other nodes because the pool had no free block.
    pub released_for_others: Option<Instant>,
    /// Why the last claim in the pool failed.
    pub last_error: Option<Arc<ClaimError>>,
    /// Whether an ADD began to wait since the last pass and was not told yet whether a claim can be tried.
    pub unnotified: bool,
    /// Counts the claims in the pool that have ended.
    pub attempts: watch::Sender<u64>,
    expected: HashMap<String, Instant>,
    failures: u32,
    not_before: Option<Instant>,
    /// Whether a claim in flight got no clear answer from the API server, so that it may have succeeded or failed.
    outcome_unknown: bool,
    seen_version: Option<String>,
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

    /// Removes expected pods that got an address, and those that got none within [`EXPECTED_POD_TTL`]. A pod with hostNetwork never gets an
    /// address.
    pub(super) fn forget_expected(&mut self, served: &[String], now: Instant) {
        self.expected.retain(|uid, since| now.duration_since(*since) < EXPECTED_POD_TTL && !served.contains(uid));
    }

    /// Ends the pause after failed claims if the pool has changed. If the last claim found no free block, the pool's status must also show
    /// a free block.
    pub(super) fn observe_status(&mut self, free_blocks: u64, resource_version: Option<&str>) {
        if self.seen_version.as_deref() != resource_version {
            self.seen_version = resource_version.map(ToOwned::to_owned);
            let full = self
                .last_error
                .as_deref()
                .is_some_and(|last_error| matches!(last_error, ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_)));
            if free_blocks > 0 || !full {
                self.not_before = None;
            }
        }
    }

    /// How long to wait before a claim may be tried. Returns `None` if a claim may be tried now.
    pub(super) fn may_claim(&self, now: Instant) -> Option<Duration> {
        if self.claiming > 0 {
            return Some(EXPECTED_POD_TTL);
        }
        self.not_before.and_then(|at| at.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Wakes ADDs that began to wait since the last pass, unless the end of a claim in flight will wake them.
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
        let cap =
            match error.as_deref() {
                None => {
                    self.failures = 0;
                    self.not_before = None;
                    self.last_error = None;
                    return;
                }
                // A change of the pool's status ends this pause early. The pause only matters if the status is out of date.
                Some(ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_)) => Duration::from_secs(20),
                Some(ClaimError::Contended(_)) => Duration::from_secs(1),
                Some(
                    ClaimError::Unreachable { .. } | ClaimError::OwnBlocksUnread(_) | ClaimError::NotInService { .. },
                ) if self.waiting > 0 => Duration::from_secs(3),
                Some(_) => Duration::from_secs(30),
            };
        self.not_before = Some(now + backoff(self.failures, Duration::from_millis(200), cap));
        self.failures = self.failures.saturating_add(1);
        self.last_error = error;
    }
}

#[cfg(test)]
mod tests;
