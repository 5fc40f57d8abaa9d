//! How fresh the API server's word is: which blocks are proven, when the API server was away, and whether it went back in time.
//!
//! A block is proven while the API server's word on the block itself is younger than the last sign of trouble, and the watches of own
//! blocks and own Node were heard of lately. An ADD from a proven block does not wait for its record. Pure but for its lock.

use std::time::Duration;

use bobbin_api_client::UnknownWhy;
use bobbin_ipam::BootTime;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::args::timing::Times;

/// Counts the signs of trouble: what was read before the last of them proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

/// What the API server's word on a block is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The API server has not spoken of the block since the agent started.
    None,
    /// The block is ours, but another node may have recorded addresses of it: it had its finalizer when it was claimed, was claimed in
    /// the quiet time, was claimed back, was lost for a while, or was taken in by the resync. A list of its records has to come first.
    AssignmentsUnseen,
    /// The API server said in this epoch that the block is ours.
    Confirmed(Epoch),
}

/// Why what the API server said earlier proves nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// A watch ended before its own timeout, or failed.
    WatchBroke,
    /// An answer had a lower resourceVersion than an earlier one: an older snapshot was restored.
    WentBack,
    /// Another attachment has a record of an address that this node handed out.
    Duplicate,
    /// The Node was created anew under the same name.
    NodeReplaced,
    /// The API server rejected the agent's token for long.
    Unauthorized,
    /// The API server was away for long.
    Outage,
    /// A block of this node went to another one.
    BlockLost,
}

/// The kinds whose resourceVersions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedKind {
    /// The own Node.
    Node,
    /// Own blocks.
    Blocks,
    /// Own records.
    Assignments,
}

impl WatchedKind {
    /// The name of its watch.
    pub fn name(self) -> &'static str {
        match self {
            WatchedKind::Node => "watch of the own Node",
            WatchedKind::Blocks => "watch of own blocks",
            WatchedKind::Assignments => "watch of own assignments",
        }
    }
}

const WATCHED_KINDS: usize = 3;
/// The kinds whose watches must have been heard of lately.
const PROOF_KINDS: [WatchedKind; 2] = [WatchedKind::Node, WatchedKind::Blocks];

/// A read that was begun: what it answers is worth no more than the epoch in which it began.
#[derive(Clone, Copy, Debug)]
pub struct ReadStart {
    epoch: Epoch,
    at: BootTime,
}

impl ReadStart {
    /// The proof that a block deserves which this read says is ours.
    pub fn proof(self) -> Proof {
        Proof::Confirmed(self.epoch)
    }
}

#[derive(Debug, Default)]
struct State {
    epoch: Epoch,
    last_activity: [Option<BootTime>; WATCHED_KINDS],
    versions: [u64; WATCHED_KINDS],
    /// The last answer of the API server before the calls began to fail.
    last_contact: Option<BootTime>,
    failing: bool,
    unauthorized_since: Option<BootTime>,
    /// When the last long outage ended.
    outage_ended: Option<BootTime>,
}

/// The agent's view of the API server's freshness. Shared by reference; every method locks for itself and returns at once.
#[derive(Debug)]
pub struct FreshnessTracker {
    times: Times,
    state: Mutex<State>,
    invalidations: watch::Sender<u64>,
}

impl FreshnessTracker {
    /// `last_contact` is the last moment at which an earlier run of the agent had contact, in this boot. `None`: there was none, so the first
    /// answer ends no outage.
    pub fn new(times: Times, last_contact: Option<BootTime>) -> FreshnessTracker {
        // The start itself is a sign of trouble: nothing is proven by epoch 0.
        let state = State { epoch: Epoch(1), last_contact, failing: true, ..State::default() };
        FreshnessTracker { times, state: Mutex::new(state), invalidations: watch::channel(0).0 }
    }

    /// The waits that it goes by.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Whether an ADD from a block with this proof need not wait for its record.
    pub fn proves(&self, proof: Proof, now: BootTime) -> bool {
        let state = self.state();
        let fresh = |heard: &Option<BootTime>| heard.is_some_and(|at| now.since(at) < self.times.silence());
        proof == Proof::Confirmed(state.epoch)
            && PROOF_KINDS.iter().all(|kind| fresh(&state.last_activity[*kind as usize]))
    }

    /// Begins a consistent read of own Node and own blocks.
    pub fn begin_read(&self, now: BootTime) -> ReadStart {
        ReadStart { epoch: self.state().epoch, at: now }
    }

    /// A read of that kind was answered: it is worth as much as an event of the watch.
    pub fn list_answered(&self, kind: WatchedKind, start: ReadStart) {
        let heard = &mut self.state().last_activity[kind as usize];
        *heard = (*heard).max(Some(start.at));
    }

    /// The watch of that kind gave an event or a bookmark.
    pub fn watch_active(&self, kind: WatchedKind, now: BootTime) {
        self.state().last_activity[kind as usize] = Some(now);
        self.in_contact(now);
    }

    /// The highest resourceVersion seen of a kind. The answer to a request that is sent now must not be below it.
    pub fn version(&self, kind: WatchedKind) -> u64 {
        self.state().versions[kind as usize]
    }

    /// Notes the resourceVersion of an answer to a request, or of a watch, that began when `floor` was known; true if it went back. A
    /// resourceVersion that is no number is not compared.
    pub fn observe_version(&self, kind: WatchedKind, resource_version: &str, floor: u64) -> bool {
        let Ok(version) = resource_version.parse::<u64>() else { return false };
        let went_back = version < floor;
        {
            let known = &mut self.state().versions[kind as usize];
            *known = if went_back { version } else { version.max(*known) };
        }
        if went_back {
            self.invalidate(Invalidation::WentBack);
        }
        went_back
    }

    /// A sign of trouble: no block is proven until it is read again.
    pub fn invalidate(&self, cause: Invalidation) {
        tracing::info!(?cause, "sign of trouble: own blocks are unproven until they are read again");
        self.state().epoch.0 += 1;
        self.invalidations.send_modify(|count| *count += 1);
    }

    /// Counts the signs of trouble; a change is the time for a resync.
    pub fn invalidations(&self) -> watch::Receiver<u64> {
        self.invalidations.subscribe()
    }

    /// The API server answered a request.
    pub fn answered(&self, now: BootTime) {
        self.state().unauthorized_since = None;
        self.in_contact(now);
    }

    /// The API server was heard of: by an answer, or by a watch, which needs no valid token once it is open.
    pub fn in_contact(&self, now: BootTime) {
        let mut state = self.state();
        let away = state.last_contact.map(|contact| now.since(contact)).unwrap_or_default();
        let long = std::mem::take(&mut state.failing) && away > self.times.outage();
        state.last_contact = Some(now);
        if long {
            state.outage_ended = Some(now);
            drop(state);
            tracing::info!(away_seconds = away.as_secs(), "the API server is back after an outage");
            self.invalidate(Invalidation::Outage);
        }
    }

    /// What became of a request, for the agent's knowledge of outages and of its token.
    pub fn observe_call(&self, unanswered: Option<&UnknownWhy>, now: BootTime) {
        match unanswered {
            None => self.answered(now),
            Some(UnknownWhy::Server(401, _)) => self.unauthorized(now),
            Some(_) => self.call_failed(),
        }
    }

    /// The API server did not answer, or a watch failed.
    pub fn call_failed(&self) {
        self.state().failing = true;
    }

    /// The API server rejected the agent's token (401).
    pub fn unauthorized(&self, now: BootTime) {
        let since = *self.state().unauthorized_since.get_or_insert(now);
        if now.since(since) > self.times.unauthorized() {
            self.state().unauthorized_since = Some(now);
            self.invalidate(Invalidation::Unauthorized);
        }
    }

    /// Whether the last call to the API server failed, or none was made yet.
    pub fn failing(&self) -> bool {
        self.state().failing
    }

    /// The last moment at which the API server is known to have been in contact.
    pub fn last_contact(&self, now: BootTime) -> Option<BootTime> {
        let state = self.state();
        if state.failing { state.last_contact } else { Some(now) }
    }

    /// Until when a block that is claimed now stays out of service: nodes with residents in it come first. `None`: no outage ended lately.
    pub fn quiet_until(&self, now: BootTime) -> Option<BootTime> {
        let ended = self.state().outage_ended?;
        let until = ended.after(self.times.quiet_after_outage());
        (until > now).then_some(until)
    }

    /// How long ago each watch was last heard of; `None`: never.
    pub fn silence(&self, now: BootTime) -> [Option<Duration>; WATCHED_KINDS] {
        self.state().last_activity.map(|heard| heard.map(|at| now.since(at)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests;
