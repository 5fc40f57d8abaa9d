//! Whether the API server takes writes, as its answers show. Pure but for the channel that wakes who waits; the recorder asks before
//! each call and tells after it.
//!
//! A read that is answered proves nothing about writes: an etcd without space answers reads, and deletes, but takes no create.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_api_client::backoff;
use tokio::sync::{Notify, watch};

use super::queue::Step;

/// The first pause between two writes that feel for the API server.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(3);

/// What kind of call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Post,
    Get,
    Delete,
}

impl Call {
    pub(super) fn of(step: &Step) -> Call {
        match step {
            Step::Post(_) => Call::Post,
            Step::Get(_) => Call::Get,
            Step::Delete(_) => Call::Delete,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Calls without an answer since the last one that raised health.
    failures: u32,
    /// A create had no answer since the last create that had one.
    posts_fail: bool,
    /// The last probe was answered and has proved nothing: the next one follows without a pause.
    go_on: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Health {
    good: watch::Sender<bool>,
    hurry: Notify,
    state: Mutex<State>,
}

impl Health {
    pub(super) fn new() -> Health {
        Health { good: watch::channel(true).0, hurry: Notify::new(), state: Mutex::default() }
    }

    pub(super) fn is_good(&self) -> bool {
        *self.good.borrow()
    }

    /// Wakes who waits for its return.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.good.subscribe()
    }

    /// How long the next probe waits. None after a probe that was answered without proving anything, so that many reads don't put off
    /// the write that does: each is followed by its write or ends its queue, and a write that fails brings the pause back.
    pub(super) fn pause(&self) -> Duration {
        let mut state = self.state();
        if std::mem::take(&mut state.go_on) { Duration::ZERO } else { backoff(state.failures, PAUSE, LONGEST) }
    }

    /// Somebody waits for a write: the next probe goes now.
    pub(super) fn hurry(&self) {
        if !self.is_good() {
            self.hurry.notify_one();
        }
    }

    /// Waits for [`Health::hurry`].
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Takes in whether a call was answered. Returns whether health changed by it.
    pub(super) fn learn(&self, call: Call, answered: bool) -> bool {
        let mut state = self.state();
        if !answered {
            state.failures = state.failures.saturating_add(1);
            state.posts_fail |= call == Call::Post;
            state.go_on = false;
        } else if call == Call::Post || call == Call::Delete && !state.posts_fail {
            *state = State::default();
        } else {
            state.go_on = state.failures > 0;
            return false;
        }
        self.good.send_if_modified(|good| std::mem::replace(good, answered) != answered)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
