//! Tracks how fresh the API server's answers are. The tracker knows which blocks are proven, and notices outages and answers from an older
//! snapshot of etcd.
//!
//! A block is proven if both of these are true:
//! - The API server has confirmed since the last invalidation that this node owns the block.
//! - The watches of the agent's Node and blocks have been active recently.
//!
//! An ADD with an address of a proven block does not wait until the API server has the assignment. The tracker does no I/O.

use std::time::Duration;

use bobbin_api_client::{ReadError, UnknownWhy};
use bobbin_ipam::BootTime;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::args::timing::Times;

/// The number of invalidations so far. Each invalidation ends the proofs of all blocks, and a read that began before it proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProofGeneration(u64);

/// What the agent knows about the ownership of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Since the start of the agent, the API server has not confirmed that this node owns the block.
    None,
    /// This node owns the block, but other nodes may have assignments in the block. The agent must list these assignments before it can
    /// prove the block.
    ///
    /// A block has this proof in these cases:
    /// - The node claimed the block during the quiet time, or while the block still had Bobbin's finalizer.
    /// - The node lost the block or claimed it back.
    /// - The resync added the block.
    /// - A duplicate address was found in the block.
    AssignmentsUnseen,
    /// The API server confirmed in this generation that this node owns the block. The next invalidation ends this proof.
    Confirmed(ProofGeneration),
}

/// The cause of an invalidation. After an invalidation, all earlier answers of the API server prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// A watch ended before its own timeout, or failed.
    WatchBroke,
    /// An answer had a lower resourceVersion than an earlier answer, so an older snapshot of etcd was restored.
    WentBack,
    /// An assignment of another attachment contains an address that this node has assigned.
    Duplicate,
    /// This agent's Node was deleted and created again under the same name.
    NodeReplaced,
    /// The API server rejected the agent's token for too long.
    Unauthorized,
    /// The API server was unreachable for too long.
    Outage,
    /// Another node owns a block that this node's state contained.
    BlockLost,
}

/// The kinds of objects whose resourceVersions the agent compares to notice a restore of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedKind {
    /// This agent's Node.
    Node,
    /// This node's blocks.
    Blocks,
    /// This node's assignments.
    Assignments,
}

impl WatchedKind {
    /// The name of the watch of this kind.
    pub fn name(self) -> &'static str {
        match self {
            WatchedKind::Node => "watch of the own Node",
            WatchedKind::Blocks => "watch of own blocks",
            WatchedKind::Assignments => "watch of own assignments",
        }
    }
}

const WATCHED_KINDS: usize = 3;
/// The kinds whose watches must have been active recently. Otherwise no block is proven.
pub const PROOF_KINDS: [WatchedKind; 2] = [WatchedKind::Node, WatchedKind::Blocks];

/// The start of a consistent read. If an invalidation happens after this start, the answer proves nothing.
#[derive(Clone, Copy, Debug)]
pub struct ReadStart {
    generation: ProofGeneration,
    at: BootTime,
}

impl ReadStart {
    /// When the read began.
    pub fn at(self) -> BootTime {
        self.at
    }

    /// The proof of a block that this read confirms.
    pub fn proof(self) -> Proof {
        Proof::Confirmed(self.generation)
    }
}

/// Whether the API server answers the agent's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answering {
    /// The agent has made no call yet, or the API server refused the last call.
    #[default]
    Unknown,
    Yes,
    /// Calls get no answer. The first of them began at this time.
    No(BootTime),
}

#[derive(Debug, Default)]
struct State {
    generation: ProofGeneration,
    last_activity: [Option<BootTime>; WATCHED_KINDS],
    versions: [u64; WATCHED_KINDS],
    /// When the API server last answered a call, or when a watch was last open while no call was failing.
    last_contact: Option<BootTime>,
    answering: Answering,
    unauthorized_since: Option<BootTime>,
    /// When the last long outage began and ended.
    outage: Option<(BootTime, BootTime)>,
}

impl State {
    /// The time of the last contact in this boot. If there was no contact, the time of the first failed call, which is the earliest known
    /// time of the outage.
    fn last_contact_or_failure(&self) -> Option<BootTime> {
        match (self.last_contact, self.answering) {
            (None, Answering::No(since)) => Some(since),
            (contact, _) => contact,
        }
    }
}

/// Tracks the freshness of the API server's answers. None of its methods waits.
#[derive(Debug)]
pub struct FreshnessTracker {
    times: Times,
    state: Mutex<State>,
    invalidations: watch::Sender<u64>,
}

impl FreshnessTracker {
    /// Creates a tracker. `last_contact` is the time at which an earlier agent process of this boot last had contact with the API server.
    /// If it is `None`, the first answer counts as the end of an outage only if earlier calls of this process failed for long enough.
    pub fn new(times: Times, last_contact: Option<BootTime>) -> FreshnessTracker {
        // The start of the agent counts as an invalidation, so generation 0 proves nothing.
        let state = State { generation: ProofGeneration(1), last_contact, ..State::default() };
        FreshnessTracker { times, state: Mutex::new(state), invalidations: watch::channel(0).0 }
    }

    /// The waiting times of the protocol between agents, operator and API server.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Whether an ADD may answer before the API server confirms its assignment. `proof` is the proof of the block from which the ADD has
    /// its address.
    pub fn proves(&self, proof: Proof, now: BootTime) -> bool {
        let state = self.state();
        let fresh = |last: &Option<BootTime>| last.is_some_and(|at| now.since(at) < self.times.max_watch_silence());
        proof == Proof::Confirmed(state.generation)
            && PROOF_KINDS.iter().all(|kind| fresh(&state.last_activity[*kind as usize]))
    }

    /// Returns the start of a consistent read that begins now.
    pub fn begin_read(&self, now: BootTime) -> ReadStart {
        ReadStart { generation: self.state().generation, at: now }
    }

    /// Records that the API server answered a LIST request for this kind. The answer counts like an event of the watch.
    pub fn list_answered(&self, kind: WatchedKind, start: ReadStart) {
        let last = &mut self.state().last_activity[kind as usize];
        *last = (*last).max(Some(start.at));
    }

    /// Records an event or bookmark of the watch of this kind.
    pub fn watch_active(&self, kind: WatchedKind, now: BootTime) {
        self.state().last_activity[kind as usize] = Some(now);
        self.watch_alive(now);
    }

    /// The highest resourceVersion of this kind that the agent has seen since the last restore of etcd. If a later request gets an answer
    /// with a lower resourceVersion, an older snapshot of etcd was restored.
    pub fn version(&self, kind: WatchedKind) -> u64 {
        self.state().versions[kind as usize]
    }

    /// Records the resourceVersion of an answer. `floor` is the highest version that the agent knew when the request began. Returns true if
    /// the answer's version is lower than `floor`, which means that an older snapshot of etcd was restored. The quiet time then begins, so
    /// that other nodes can recreate their assignments before newly claimed blocks enter service.
    ///
    /// Ignores a resourceVersion that is not a number.
    pub fn observe_version(&self, kind: WatchedKind, resource_version: &str, floor: u64) -> bool {
        let Ok(version) = resource_version.parse::<u64>() else { return false };
        let went_back = version < floor;
        {
            let mut state = self.state();
            let known = &mut state.versions[kind as usize];
            *known = if went_back { version } else { version.max(*known) };
            if went_back {
                // A restore of etcd may be too fast to count as an outage. Record an outage from boot until the last contact. The
                // checkpoint then saves the time of the boot as the last contact, so a restarted agent also waits for a quiet time.
                state.outage = state.last_contact.map(|contact| (BootTime::default(), contact));
            }
        }
        if went_back {
            self.invalidate(Invalidation::WentBack);
        }
        went_back
    }

    /// Invalidates the proofs of all blocks. Only a new read can prove a block again.
    pub fn invalidate(&self, cause: Invalidation) {
        tracing::info!(
            ?cause,
            "this node may have lost blocks, so the agent reads the node's blocks again. Until then, each ADD waits until the API server has confirmed the IPAssignment of the ADD"
        );
        self.state().generation.0 += 1;
        self.invalidations.send_modify(|count| *count += 1);
    }

    /// Returns a channel that reports each invalidation. After an invalidation, the agent needs a resync.
    pub fn invalidations(&self) -> watch::Receiver<u64> {
        self.invalidations.subscribe()
    }

    /// Records that a watch was open until now. While calls fail, an open watch does not count as contact, because the API server sends
    /// bookmarks from its cache even without etcd.
    pub fn watch_alive(&self, now: BootTime) {
        let mut state = self.state();
        if state.answering == Answering::Yes {
            state.last_contact = Some(now);
        }
    }

    /// Records an answer of the API server.
    pub fn answered(&self, now: BootTime) {
        let mut state = self.state();
        state.unauthorized_since = None;
        let before = state.last_contact_or_failure().unwrap_or(now);
        state.last_contact = Some(now);
        let away = now.since(before);
        let was_failing = std::mem::replace(&mut state.answering, Answering::Yes) != Answering::Yes;
        let long = was_failing && away > self.times.outage_threshold();
        if long {
            state.outage = Some((before, now));
            drop(state);
            tracing::info!(away_seconds = away.as_secs(), "the API server answers again after an outage");
            self.invalidate(Invalidation::Outage);
        }
    }

    /// Records the outcome of a call. `unanswered` says why the call got no answer, and is `None` if it got one. `now` is a time at which
    /// the call was under way, or at which the answer came.
    pub fn observe_call(&self, unanswered: Option<&UnknownWhy>, now: BootTime) {
        match unanswered {
            None => self.answered(now),
            Some(UnknownWhy::Server(401, _)) => self.unauthorized(now),
            // Too many requests: the API server is reachable, but this answer says nothing about etcd.
            Some(UnknownWhy::Server(429, _)) => {}
            Some(_) => self.call_failed(now),
        }
    }

    /// Records the outcome of a read.
    pub fn observe_read<T>(&self, read: &Result<T, ReadError>, now: BootTime) {
        let unanswered = match read {
            Err(ReadError::Unreachable(why)) => Some(why),
            Ok(_) | Err(_) => None,
        };
        self.observe_call(unanswered, now);
    }

    /// Records a call that began at `begun` and got no answer, or a watch that broke at `begun`.
    pub fn call_failed(&self, begun: BootTime) {
        let mut state = self.state();
        state.answering = match state.answering {
            Answering::No(since) => Answering::No(since.min(begun)),
            Answering::Unknown | Answering::Yes => Answering::No(begun),
        };
    }

    /// Records that the API server answered a list with an error. From then on, an open watch does not count as contact, until the API
    /// server answers a call without an error.
    pub fn list_refused(&self) {
        let mut state = self.state();
        if state.answering == Answering::Yes {
            state.answering = Answering::Unknown;
        }
    }

    /// Records that the API server rejected the agent's token (401).
    pub fn unauthorized(&self, now: BootTime) {
        let since = *self.state().unauthorized_since.get_or_insert(now);
        if now.since(since) > self.times.unauthorized() {
            self.state().unauthorized_since = Some(now);
            self.invalidate(Invalidation::Unauthorized);
        }
    }

    /// Whether the last call to the API server failed, or the agent has made no call yet.
    pub fn failing(&self) -> bool {
        self.state().answering != Answering::Yes
    }

    /// The time of the last contact with the API server in this boot, by this agent process or an earlier one. Returns `None` if there was
    /// no contact.
    pub fn last_answer(&self) -> Option<BootTime> {
        self.state().last_contact
    }

    /// Returns the time that the checkpoint saves as the last contact with the API server. During the quiet time after an outage, this is
    /// the time when the outage began. So an agent that restarts in the quiet time also sees the outage, and waits for a full quiet time.
    pub fn last_contact(&self, now: BootTime) -> Option<BootTime> {
        let state = self.state();
        match state.outage {
            Some((began, ended)) if ended.after(self.times.quiet_time()) > now => Some(began),
            _ if state.answering == Answering::Yes => Some(now),
            _ => state.last_contact_or_failure(),
        }
    }

    /// Returns the end of the quiet time, or `None` if there was no recent outage. A newly claimed block stays out of service until then,
    /// so that other nodes can first create the assignments of their pods in the block.
    pub fn quiet_until(&self, now: BootTime) -> Option<BootTime> {
        let (_, ended) = self.state().outage?;
        let until = ended.after(self.times.quiet_time());
        (until > now).then_some(until)
    }

    /// How long the quiet time after an outage still lasts. Returns `None` if there was no recent outage.
    pub fn quiet_time_left(&self, now: BootTime) -> Option<Duration> {
        self.quiet_until(now).map(|until| until.since(now))
    }

    /// How long ago the watch of each kind was last active. The value is `None` for a watch that was never active, and for assignments,
    /// whose watch this tracker does not see.
    pub fn silence(&self, now: BootTime) -> [Option<Duration>; WATCHED_KINDS] {
        self.state().last_activity.map(|last| last.map(|at| now.since(at)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests;
