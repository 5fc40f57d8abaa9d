//! Decides from the API server's answers whether the API server accepts writes. Pure, except for the channel that wakes waiting writes.
//!
//! An answered read does not prove that writes succeed. For example, if etcd has no space left, reads and deletes succeed, but creates
//! fail.

use std::time::Duration;

use bobbin_api_client::backoff;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use super::queue::AssignmentCall;

/// The first pause between two probes.
const MIN_PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// The longest pause between two probes.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// The kind of a call about an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Create,
    Get,
    Delete,
}

impl CallKind {
    pub(super) fn of(step: &AssignmentCall) -> CallKind {
        match step {
            AssignmentCall::Create(_) => CallKind::Create,
            AssignmentCall::Get(_) => CallKind::Get,
            AssignmentCall::Delete(_) => CallKind::Delete,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The number of calls without an answer since the API server last proved that it accepts writes.
    failures: u32,
    /// Whether the last create call got no answer.
    creates_fail: bool,
    /// True if the API server answered the last probe, but the answer did not prove that writes succeed. The next probe then follows
    /// without a pause.
    skip_pause: bool,
}

/// Tracks whether writes succeed.
#[derive(Debug)]
pub(super) struct WriteHealth {
    healthy: watch::Sender<bool>,
    probe_now: Notify,
    state: Mutex<State>,
}

impl WriteHealth {
    pub(super) fn new() -> WriteHealth {
        WriteHealth { healthy: watch::channel(true).0, probe_now: Notify::new(), state: Mutex::default() }
    }

    pub(super) fn is_healthy(&self) -> bool {
        *self.healthy.borrow()
    }

    /// Returns a receiver that is notified when the API server starts or stops accepting writes.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.healthy.subscribe()
    }

    /// The pause before the next probe.
    ///
    /// After an answered read, the next pause is zero. Many queues may have to read before they write, and a pause after each read would
    /// delay the write that shows whether writes succeed. A call without an answer restores the pause.
    pub(super) fn pause(&self) -> Duration {
        let mut state = self.state();
        if std::mem::take(&mut state.skip_pause) {
            Duration::ZERO
        } else {
            backoff(state.failures, MIN_PROBE_INTERVAL, MAX_PROBE_INTERVAL)
        }
    }

    /// Lets the next probe start now, because an ADD is waiting or the API server has answered a read.
    pub(super) fn probe_now(&self) {
        if !self.is_healthy() {
            self.probe_now.notify_one();
        }
    }

    /// Waits for [`WriteHealth::probe_now`].
    pub(super) async fn probe_requested(&self) {
        self.probe_now.notified().await;
    }

    /// Records whether the API server answered a call. Returns true if the recorded health of writes changed.
    pub(super) fn observe(&self, call: CallKind, answered: bool) -> bool {
        let mut state = self.state();
        if !answered {
            state.failures = state.failures.saturating_add(1);
            state.creates_fail |= call == CallKind::Create;
            state.skip_pause = false;
        } else if call == CallKind::Create || call == CallKind::Delete && !state.creates_fail {
            *state = State::default();
        } else {
            state.skip_pause = state.failures > 0;
            return false;
        }
        self.healthy.send_if_modified(|healthy| std::mem::replace(healthy, answered) != answered)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests;
