//! The records (IPAssignments) of this node's attachments at the API server: created and deleted with one write each, serial per
//! address, sent again until their outcome is known. It never decides who holds an address, and nobody waits for it longer than they like.

mod api_calls;
mod health;
pub(crate) mod late_confirmations;
mod pending_deletions;
mod queue;
mod read;
pub(crate) mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_api_client::{Clients, backoff};
use bobbin_crds::name;
use bobbin_ipam::{AttachmentKey, IpPair};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::cluster::freshness::Freshness;
use crate::state::Attachment;
use health::{Call, Health};
use pending_deletions::{Deletion, Deletions};
use queue::{AddressQueue, Step};
pub(crate) use read::{RecordRead, address_of, own_records, own_records_of, pair_of, read_record, records_of};

/// Writes under way at once: as many as a few connections carry; more would only open more connections.
const FRESH_AT_ONCE: usize = 16;
/// The same for what is sent again or was left from before: it never delays a new ADD.
const REPLAYED_AT_ONCE: usize = 4;
/// The first pause after the API server refused something that must not be given up, and the longest.
const REFUSED_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// How often records that are being written are looked at.
const ANSWERED_PAUSE: Duration = Duration::from_millis(20);
/// How long it may take to find out whose the record is that stands in the place of a new one.
const OWNER_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the API server says of a record that was to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The record is there, and ours.
    Recorded {
        /// Its UID, the precondition of its deletion.
        uid: String,
    },
    /// Another attachment has a record of that address: take another address, and report the duplicate if it is another node's.
    Taken {
        /// Whose it is, in words.
        by: String,
        /// The node that the record names.
        node: String,
        /// The attachment that the record names.
        holder: AttachmentKey,
        /// The record's UID.
        uid: String,
    },
    /// The API server refuses such a record; what it said.
    Refused(String),
}

/// A verdict for which nobody waits any more.
#[derive(Clone, Debug)]
pub struct LateConfirmation {
    /// The attachment that the record is of.
    pub key: AttachmentKey,
    /// The address.
    pub pair: IpPair,
    /// What the API server said.
    pub confirmation: Confirmation,
}

/// Where a write for a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// An ADD waits.
    Fresh,
    /// The API server's list lacks it.
    Missing,
    /// The last run of the agent did not hear whether it is there.
    Restored,
}

/// Creates and deletes records. Cheap to clone.
#[derive(Clone)]
pub struct AssignmentWriter(Arc<Inner>);

struct Inner {
    node_name: String,
    clients: Clients,
    deletions: Deletions,
    write_queues: Mutex<HashMap<String, AddressQueue>>,
    pending: AtomicUsize,
    fresh: Semaphore,
    replayed: Semaphore,
    probe: Semaphore,
    health: Health,
    freshness: Arc<Freshness>,
    late: Box<dyn Fn(LateConfirmation) + Send + Sync>,
}

impl AssignmentWriter {
    /// Opens the recorder. `late` is told each verdict that its ADD did not wait for; it must not block.
    ///
    /// # Errors
    /// The directory of the queued deletions under `run_dir` can't be made or read.
    pub fn open(
        clients: Clients,
        node_name: &str,
        run_dir: &Path,
        freshness: Arc<Freshness>,
        late: impl Fn(LateConfirmation) + Send + Sync + 'static,
    ) -> std::io::Result<AssignmentWriter> {
        Ok(AssignmentWriter(Arc::new(Inner {
            node_name: node_name.to_owned(),
            clients,
            deletions: Deletions::open(&run_dir.join(crate::host::run_dir::layout::PENDING_DELETIONS))?,
            write_queues: Mutex::new(HashMap::new()),
            pending: AtomicUsize::new(0),
            fresh: Semaphore::new(FRESH_AT_ONCE),
            replayed: Semaphore::new(REPLAYED_AT_ONCE),
            probe: Semaphore::new(1),
            health: Health::new(),
            freshness,
            late: Box::new(late),
        })))
    }

    /// Takes up what the last run left: the queued deletions, and the attachments whose record is not confirmed. Called once, before
    /// the first ADD; inside the runtime.
    pub fn restore<'a>(&self, attachments: impl IntoIterator<Item = &'a Attachment>) {
        for deletion in self.0.deletions.load() {
            self.push(&deletion.name, queue::Operation::delete(deletion.key.clone(), deletion.uid.clone(), None), true);
        }
        for attachment in attachments {
            if attachment.assignment_uid.is_none() {
                drop(self.enqueue(attachment, Origin::Restored));
            }
        }
    }

    /// Creates the record of an attachment. The answer comes once the API server has given its verdict: never, while it is away. Wait
    /// with [`Recorder::verdict`]. A verdict that nobody waits for goes to `late`.
    pub fn create(&self, attachment: &Attachment) -> oneshot::Receiver<Confirmation> {
        // The pause between two probes may be longer than an ADD waits.
        self.0.health.hurry();
        self.enqueue(attachment, Origin::Fresh)
    }

    /// Waits for a verdict no longer than `wait`, or until it is known whose the record is that stands in its place; a verdict is never lost
    /// between here and `late`.
    pub async fn confirmation(
        &self,
        mut answer: oneshot::Receiver<Confirmation>,
        pair: IpPair,
        wait: Duration,
    ) -> Option<Confirmation> {
        // A timeout of zero would last to tokio's next millisecond.
        if !wait.is_zero()
            && let Ok(confirmation) = tokio::time::timeout(wait, &mut answer).await
        {
            return confirmation.ok();
        }
        let stands = record_name(pair)
            .is_some_and(|name| self.write_queues().get(&name).is_some_and(AddressQueue::found_a_record));
        if stands && let Ok(confirmation) = tokio::time::timeout(OWNER_LOOKUP_TIMEOUT, &mut answer).await {
            return confirmation.ok();
        }
        answer.close();
        answer.try_recv().ok()
    }

    /// Like [`Recorder::create`], behind everything that is new: for records that are missing. The verdict goes to `late`.
    pub fn create_again(&self, attachment: &Attachment) {
        drop(self.enqueue(attachment, Origin::Missing));
    }

    /// [`Recorder::create_again`] for each that should have a record; returns when all are answered, or after `deadline`.
    pub async fn create_all_again(&self, attachments: &[Attachment], deadline: Duration) {
        let due: Vec<&Attachment> = attachments.iter().filter(|attachment| attachment.needs_assignment()).collect();
        for attachment in due.iter().filter(|attachment| !self.busy_with(attachment.pair)) {
            self.create_again(attachment);
        }
        let all = async {
            while due.iter().any(|attachment| self.busy_with(attachment.pair)) {
                tokio::time::sleep(ANSWERED_PAUSE).await;
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::debug!("records that were missing are not confirmed yet");
        }
    }

    fn enqueue(&self, attachment: &Attachment, origin: Origin) -> oneshot::Receiver<Confirmation> {
        let (reply, answer) = oneshot::channel();
        match api_calls::record_of(attachment, &self.0.node_name) {
            Some((name, record)) => {
                let mut write =
                    queue::Operation::create(attachment.key.clone(), attachment.pair, Box::new(record), reply);
                if origin == Origin::Restored {
                    // The last run may have sent it: read first, and let no DEL call it off unread.
                    write = write.in_doubt();
                }
                self.push(&name, write, origin != Origin::Fresh);
            }
            None => {
                drop(
                    reply
                        .send(Confirmation::Refused(format!("attachment {} has no address to record", attachment.key))),
                );
            }
        }
        answer
    }

    /// Deletes the record of an address, if it is still the attachment's. Durable when this returns: DEL need not wait for the answer,
    /// which comes when the record is gone. `uid` is what the create answered; without it the record is read first.
    pub fn delete(&self, name: &str, key: &AttachmentKey, uid: Option<String>) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        let deletion = Deletion { name: name.to_owned(), key: key.clone(), uid: uid.clone() };
        if let Err(error) = self.0.deletions.keep(&deletion) {
            tracing::warn!(
                "the deletion of record {name} could not be written down: {error}; if the agent restarts before it is done, the resync deletes the record once its pod is gone; see that the run directory can be written"
            );
        }
        self.push(name, queue::Operation::delete(key.clone(), uid, Some(reply)), false);
        answer
    }

    /// Deletes the record of a pair; see [`Recorder::delete`]. A pair without addresses has none.
    pub fn delete_pair(&self, pair: IpPair, key: &AttachmentKey, uid: Option<String>) -> Option<oneshot::Receiver<()>> {
        record_name(pair).map(|name| self.delete(&name, key, uid))
    }

    /// Records that wait to be created or deleted.
    pub fn pending(&self) -> usize {
        self.0.pending.load(Ordering::Relaxed)
    }

    /// Whether the API server takes writes. While it does not, one call at a time probes it.
    fn healthy(&self) -> bool {
        self.0.health.is_good()
    }

    /// Whether something waits to be written for that address.
    pub fn busy(&self, name: &str) -> bool {
        self.write_queues().get(name).is_some_and(|write_queue| !write_queue.is_idle())
    }

    /// The names of the records for which something waits to be written.
    pub fn busy_names(&self) -> Vec<String> {
        self.write_queues()
            .iter()
            .filter(|(_, write_queue)| !write_queue.is_idle())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether something waits to be written for that pair.
    pub fn busy_with(&self, pair: IpPair) -> bool {
        record_name(pair).is_some_and(|name| self.busy(&name))
    }

    fn push(&self, name: &str, write: queue::Operation, replayed: bool) {
        let mut write_queues = self.write_queues();
        // A queue is in the map while a task works on it, empty or not.
        let runs = write_queues.contains_key(name);
        let write_queue = write_queues.entry(name.to_owned()).or_default();
        let before = write_queue.len();
        let cancelled = write_queue.push(write);
        let after = write_queue.len();
        drop(write_queues);
        self.count(before, after);
        for key in cancelled {
            self.0.deletions.forget(name, &key);
        }
        if !runs {
            tokio::spawn(self.clone().run_write_queue(name.to_owned(), replayed));
        }
    }

    fn count(&self, before: usize, after: usize) {
        if after >= before {
            self.0.pending.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.0.pending.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Does one address's writes in their order, until there are none.
    async fn run_write_queue(self, name: String, mut replayed: bool) {
        let mut refusals = 0_u32;
        loop {
            let permit = self.lock(replayed).await;
            // Only now: until it is our turn, what was wanted may be called off.
            let Some(step) = self.next(&name) else { return };
            let call = Call::of(&step);
            let outcome = self.0.call(&name, step).await;
            let answered = outcome != queue::Outcome::Unknown;
            replayed |= !answered;
            let (done, over) = self.learn(&name, outcome);
            // Before the permit goes: the next probe's pause depends on it.
            self.note(call, answered);
            drop(permit);
            if let queue::Completion::Later(why) = &done {
                if refusals == 0 {
                    tracing::error!(
                        "the API server refuses a call for record {name} ({call:?}): {why}; it is tried again every 30 s at most; check ClusterRole bobbin-agent and the admission policies"
                    );
                }
                let [first, longest] = REFUSED_PAUSES;
                tokio::time::sleep(backoff(refusals, first, longest)).await;
                refusals = refusals.saturating_add(1);
                continue;
            }
            if answered {
                refusals = 0;
            }
            self.tell(&name, done);
            if over {
                return;
            }
        }
    }

    /// The next step; without one the queue is removed.
    fn next(&self, name: &str) -> Option<Step> {
        let mut write_queues = self.write_queues();
        let step = write_queues.get_mut(name)?.next();
        if step.is_none() {
            write_queues.remove(name);
        }
        step
    }

    /// Takes in an outcome; whether the queue is removed by it.
    fn learn(&self, name: &str, outcome: queue::Outcome) -> (queue::Completion, bool) {
        let mut write_queues = self.write_queues();
        let Some(write_queue) = write_queues.get_mut(name) else { return (queue::Completion::NotYet, true) };
        let before = write_queue.len();
        let done = write_queue.learn(outcome);
        let after = write_queue.len();
        let over = write_queue.is_idle();
        if over {
            write_queues.remove(name);
        }
        drop(write_queues);
        self.count(before, after);
        (done, over)
    }

    /// Waits for the turn of a call. While the API server takes no writes, one call at a time probes it, with growing pauses that the next ADD
    /// cuts short.
    async fn lock(&self, replayed: bool) -> Option<SemaphorePermit<'_>> {
        let lot = if replayed { &self.0.replayed } else { &self.0.fresh };
        loop {
            if let Some(probe) = self.probe().await {
                return Some(probe);
            }
            let permit = lot.acquire().await.ok()?;
            // It may have taken long: those who were let in together don't all run into the same failure.
            if self.healthy() {
                return Some(permit);
            }
        }
    }

    /// The one call that feels for the API server; `None` once that takes writes.
    async fn probe(&self) -> Option<SemaphorePermit<'_>> {
        let mut healthy = self.0.health.subscribe();
        if *healthy.borrow_and_update() {
            return None;
        }
        let probe = tokio::select! {
            permit = self.0.probe.acquire() => permit.ok()?,
            _ = healthy.wait_for(|healthy| *healthy) => return None,
        };
        let pause = self.0.health.pause();
        tokio::select! {
            _ = healthy.wait_for(|healthy| *healthy) => None,
            () = self.0.health.hurried() => Some(probe),
            () = tokio::time::sleep(pause) => Some(probe),
        }
    }

    fn note(&self, call: Call, answered: bool) {
        let changed = self.0.health.learn(call, answered);
        if changed && answered {
            tracing::info!(pending = self.pending(), "the API server takes records again");
        } else if changed {
            tracing::warn!(?call, "the API server did not answer about a record; pods go on, their records follow");
        }
    }

    fn tell(&self, name: &str, done: queue::Completion) {
        match done {
            queue::Completion::NotYet | queue::Completion::Later(_) => {}
            queue::Completion::Created { key, pair, reply, confirmation } => {
                if let Err(confirmation) = reply.send(confirmation) {
                    (self.0.late)(LateConfirmation { key, pair, confirmation });
                }
            }
            queue::Completion::Deleted { key, reply } => {
                self.0.deletions.forget(name, &key);
                if let Some(reply) = reply {
                    // DEL does not wait; nobody listening is the rule.
                    let _ = reply.send(());
                }
            }
        }
    }

    fn write_queues(&self) -> MutexGuard<'_, HashMap<String, AddressQueue>> {
        self.0.write_queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the record of a pair.
pub fn record_name(pair: IpPair) -> Option<String> {
    name::assignment(pair.ipv4, pair.ipv6)
}
