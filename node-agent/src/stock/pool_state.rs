//! What the stock remembers of one pool between looks. Pure but for the clock values it is handed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::backoff;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::claim::ClaimError;

/// A pod on its way is waited for so long.
const EXPECTED_POD_TIMEOUT: Duration = Duration::from_secs(20);

/// One pool.
#[derive(Default)]
pub(super) struct PoolState {
    /// ADDs that wait.
    pub waiting: u32,
    /// Claims under way.
    pub claiming: u32,
    /// When a block was last given back because the pool had no other left.
    pub released_for_others: Option<Instant>,
    /// Why the last claim failed.
    pub trouble: Option<Arc<ClaimError>>,
    /// An ADD has asked since the last look, and does not know yet whether a claim can be tried.
    pub unanswered: bool,
    /// Counts claims that have ended.
    pub tried: watch::Sender<u64>,
    expected: HashMap<String, Instant>,
    failures: u32,
    not_before: Option<Instant>,
    /// A claim under way has written and can't find out with what outcome.
    in_doubt: bool,
    seen: Option<String>,
}

impl PoolState {
    /// A pod, by its UID, will want an address soon.
    pub(super) fn expect(&mut self, uid: String, now: Instant) {
        self.expected.insert(uid, now);
    }

    pub(super) fn expects(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Pods on their way that have no address yet.
    pub(super) fn expected(&self) -> u32 {
        u32::try_from(self.expected.len()).unwrap_or(u32::MAX)
    }

    /// Those that have one, or don't come (pods on the host's network never do), are waited for no more.
    pub(super) fn forget_expected(&mut self, served: &[String], now: Instant) {
        self.expected.retain(|uid, since| now.duration_since(*since) < EXPECTED_POD_TIMEOUT && !served.contains(uid));
    }

    /// Takes in the pool's status: a change of it that leaves free blocks ends the pause after failed claims.
    pub(super) fn pool_says(&mut self, free_blocks: u64, resource_version: Option<&str>) {
        if self.seen.as_deref() != resource_version {
            self.seen = resource_version.map(ToOwned::to_owned);
            let full = self
                .trouble
                .as_deref()
                .is_some_and(|trouble| matches!(trouble, ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_)));
            if free_blocks > 0 || !full {
                self.not_before = None;
            }
        }
    }

    /// `None`: a claim may be tried now; else how long not.
    pub(super) fn may_claim(&self, now: Instant) -> Option<Duration> {
        if self.claiming > 0 {
            return Some(EXPECTED_POD_TIMEOUT);
        }
        self.not_before.and_then(|at| at.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// ADDs that wait hear what is known: no claim is under way, or one that may take as long as the API server is away.
    pub(super) fn answer(&mut self) {
        if (self.claiming == 0 || self.in_doubt) && std::mem::take(&mut self.unanswered) {
            self.tried.send_modify(|count| *count += 1);
        }
    }

    /// A claim under way goes on, but nobody knows how long: who waits does so for no block.
    pub(super) fn claim_outcome_unknown(&mut self, error: ClaimError) {
        self.in_doubt = true;
        self.unanswered = false;
        self.trouble = Some(Arc::new(error));
        self.tried.send_modify(|count| *count += 1);
    }

    /// A claim succeeded, or failed for that reason.
    pub(super) fn claim_ended(&mut self, error: Option<Arc<ClaimError>>, now: Instant) {
        self.in_doubt = false;
        self.unanswered = false;
        self.tried.send_modify(|count| *count += 1);
        let cap = match error.as_deref() {
            None => {
                self.failures = 0;
                self.not_before = None;
                self.trouble = None;
                return;
            }
            // The status tells when to try again; a blind try now and then, in case it does not.
            Some(ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_)) => Duration::from_secs(20),
            Some(ClaimError::Contended(_)) => Duration::from_secs(1),
            Some(ClaimError::Unreachable { .. } | ClaimError::NotInService { .. }) if self.waiting > 0 => {
                Duration::from_secs(3)
            }
            Some(_) => Duration::from_secs(30),
        };
        self.not_before = Some(now + backoff(self.failures, Duration::from_millis(200), cap));
        self.failures = self.failures.saturating_add(1);
        self.trouble = error;
    }
}

#[cfg(test)]
mod tests;
