//! The demand controller's state of one pool between two reconcile passes. It does no I/O, and callers pass the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::backoff;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::blocks::claim::ClaimError;

/// How long an expected pod counts towards the demand.
const EXPECTED_POD_TTL: Duration = Duration::from_secs(20);

/// The state of one pool.
#[derive(Default)]
pub(super) struct PoolState {
    /// ADDs that wait for an address.
    pub waiting: u32,
    /// Claims in flight.
    pub claiming: u32,
    /// When a block was last released because the pool had no other free block.
    pub released_for_others: Option<Instant>,
    /// Why the last claim failed.
    pub last_error: Option<Arc<ClaimError>>,
    /// An ADD started to wait since the last pass and does not know yet whether a claim can be tried.
    pub unnotified: bool,
    /// Counts claims that have ended.
    pub attempts: watch::Sender<u64>,
    expected: HashMap<String, Instant>,
    failures: u32,
    not_before: Option<Instant>,
    /// A claim in flight has an unknown outcome.
    outcome_unknown: bool,
    seen_version: Option<String>,
}

impl PoolState {
    /// Adds a pod, by its UID, that will need an address soon.
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

    /// Removes pods that got an address, and pods that got none within [`EXPECTED_POD_TTL`]. A pod with hostNetwork never gets one.
    pub(super) fn forget_expected(&mut self, served: &[String], now: Instant) {
        self.expected.retain(|uid, since| now.duration_since(*since) < EXPECTED_POD_TTL && !served.contains(uid));
    }

    /// Ends the pause after failed claims if the pool has changed. After a claim found no block, the status must show a free block.
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

    /// How long no claim may be tried; `None`: one may be tried now.
    pub(super) fn may_claim(&self, now: Instant) -> Option<Duration> {
        if self.claiming > 0 {
            return Some(EXPECTED_POD_TTL);
        }
        self.not_before.and_then(|at| at.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Wakes ADDs that began to wait since the last pass, unless a claim is in flight whose end will wake them.
    pub(super) fn notify_waiting(&mut self) {
        if (self.claiming == 0 || self.outcome_unknown) && std::mem::take(&mut self.unnotified) {
            self.attempts.send_modify(|count| *count += 1);
        }
    }

    /// The outcome of a claim in flight is unknown. Wakes the waiting ADDs, because it may stay unknown for long.
    pub(super) fn claim_outcome_unknown(&mut self, error: ClaimError) {
        self.outcome_unknown = true;
        self.unnotified = false;
        self.last_error = Some(Arc::new(error));
        self.attempts.send_modify(|count| *count += 1);
    }

    /// A claim succeeded, or failed with `error`.
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
                // A change of the pool's status triggers the next claim. Retrying covers a status that is out of date.
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
