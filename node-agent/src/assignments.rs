//! Creates and deletes the IPAssignments of this node's attachments at the API server.
//!
//! Each create and each delete is one write. The writer sends the writes for one address one after another, and repeats each write until
//! the writer knows the outcome. The writer never decides which attachment gets an address.

mod api_calls;
mod deleted_uids;
mod health;
pub(crate) mod late_confirmations;
mod pending_deletions;
mod queue;
mod queue_runner;
mod read;
pub(crate) mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bobbin_api_client::Clients;
use bobbin_crds::name;
use bobbin_ipam::{AttachmentKey, IpPair};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, oneshot};

use crate::cluster::freshness::FreshnessTracker;
use crate::state::Attachment;
use deleted_uids::DeletedUids;
use health::WriteHealth;
use pending_deletions::{PendingDeletion, PendingDeletions};
use queue::{AddressQueue, Operation};
pub(crate) use read::{
    AssignmentInfo, address_of, get_assignment, list_assignments_in_block, list_own_assignments,
    list_own_assignments_in_block, pair_of,
};

/// The largest number of new writes that the agent sends at the same time. More writes at the same time would only open more connections to
/// the API server.
const MAX_NEW_WRITES_IN_FLIGHT: usize = 16;
/// The largest number of repeated or restored writes that the agent sends at the same time. New writes have their own limit,
/// [`MAX_NEW_WRITES_IN_FLIGHT`].
const MAX_REPLAYED_WRITES_IN_FLIGHT: usize = 4;
/// The interval at which [`AssignmentWriter::recreate_missing`] checks whether the API server has answered its writes.
const ANSWER_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The longest extra time that an ADD waits if its address already has an assignment. In this time, the agent reads that assignment.
const OWNER_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The API server's answer to the creation of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The assignment exists and names the attachment.
    Created {
        /// The assignment's UID. A later delete call sends this UID as a precondition.
        uid: String,
    },
    /// The assignment already exists and names another attachment. The attachment in the create request needs another address.
    Taken {
        /// A description of the other attachment, for messages.
        by: String,
        /// The node in the assignment.
        node: String,
        /// The other attachment.
        holder: AttachmentKey,
        /// The assignment's UID.
        uid: String,
    },
    /// The API server refused to create the assignment. Contains the API server's message.
    Refused(String),
    /// An admission policy denies the assignment, and the writer repeats the create. Contains the policy's message.
    Denied(String),
}

/// A confirmation that the writer passes to `on_late`: either no ADD is waiting any more, or an admission policy denied the create.
#[derive(Clone, Debug)]
pub struct LateConfirmation {
    /// The attachment whose assignment was written.
    pub key: AttachmentKey,
    /// The attachment's address.
    pub pair: IpPair,
    /// The API server's answer to the creation of the assignment.
    pub confirmation: Confirmation,
}

/// The reason why the agent creates an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// An ADD is waiting for the assignment.
    Add,
    /// The assignment is missing from the API server's list.
    Missing,
    /// An earlier run of the agent may have created the assignment.
    Restored,
}

/// Creates and deletes IPAssignments. Cheap to clone.
#[derive(Clone)]
pub struct AssignmentWriter(Arc<WriterState>);

struct WriterState {
    node_name: String,
    clients: Clients,
    deletions: PendingDeletions,
    queues: Mutex<HashMap<String, AddressQueue>>,
    deleted: Mutex<DeletedUids>,
    pending: AtomicUsize,
    new_writes: Semaphore,
    replayed_writes: Semaphore,
    probe: Semaphore,
    health: WriteHealth,
    freshness: Arc<FreshnessTracker>,
    on_late: Box<dyn Fn(LateConfirmation) + Send + Sync>,
}

impl AssignmentWriter {
    /// Opens the writer. The writer calls `on_late` with each confirmation for which no ADD is waiting. It also calls `on_late`, even while
    /// an ADD is waiting, when an admission policy first denies a create. `on_late` must not block.
    ///
    /// # Errors
    /// The directory of pending deletions under `run_dir` can't be created or read.
    pub fn open(
        clients: Clients,
        node_name: &str,
        run_dir: &Path,
        freshness: Arc<FreshnessTracker>,
        on_late: impl Fn(LateConfirmation) + Send + Sync + 'static,
    ) -> std::io::Result<AssignmentWriter> {
        Ok(AssignmentWriter(Arc::new(WriterState {
            node_name: node_name.to_owned(),
            clients,
            deletions: PendingDeletions::open(&run_dir.join(crate::state::layout::PENDING_DELETIONS))?,
            queues: Mutex::new(HashMap::new()),
            deleted: Mutex::default(),
            pending: AtomicUsize::new(0),
            new_writes: Semaphore::new(MAX_NEW_WRITES_IN_FLIGHT),
            replayed_writes: Semaphore::new(MAX_REPLAYED_WRITES_IN_FLIGHT),
            probe: Semaphore::new(1),
            health: WriteHealth::new(),
            freshness,
            on_late: Box::new(on_late),
        })))
    }

    /// Resumes the writes that an earlier run of the agent left unfinished: pending deletions, and creates of assignments that are not
    /// confirmed.
    ///
    /// Call this method once, inside the tokio runtime, before the first ADD.
    pub fn restore<'a>(&self, attachments: impl IntoIterator<Item = &'a Attachment>) {
        for deletion in self.0.deletions.load() {
            self.push(&deletion.name, Operation::delete(deletion.key.clone(), deletion.uid.clone(), None), true);
        }
        for attachment in attachments {
            if attachment.assignment_uid.is_none() {
                drop(self.enqueue(attachment, Origin::Restored));
            }
        }
    }

    /// Creates the assignment of an attachment. The returned receiver gets no confirmation while the API server is unreachable.
    ///
    /// Wait for the confirmation with [`AssignmentWriter::confirmation`]. If no caller is waiting, the confirmation goes to `on_late`.
    pub fn create(&self, attachment: &Attachment) -> oneshot::Receiver<Confirmation> {
        // Probe the API server now, because the pause before the next probe may be longer than the ADD's wait.
        self.0.health.probe_now();
        self.enqueue(attachment, Origin::Add)
    }

    /// Waits up to `wait` for a confirmation. If the address already has an assignment, waits up to one second longer for a read of that
    /// assignment.
    ///
    /// No confirmation is lost: each confirmation goes either to this caller or to `on_late`.
    pub async fn confirmation(
        &self,
        mut answer: oneshot::Receiver<Confirmation>,
        pair: IpPair,
        wait: Duration,
    ) -> Option<Confirmation> {
        // A timeout of zero needs its own case, because tokio would wait until the next millisecond.
        if !wait.is_zero()
            && let Ok(confirmation) = tokio::time::timeout(wait, &mut answer).await
        {
            return confirmation.ok();
        }
        let exists = assignment_name(pair)
            .is_some_and(|name| self.queues().get(&name).is_some_and(AddressQueue::found_existing));
        if exists && let Ok(confirmation) = tokio::time::timeout(OWNER_LOOKUP_TIMEOUT, &mut answer).await {
            return confirmation.ok();
        }
        answer.close();
        answer.try_recv().ok()
    }

    /// If writes are failing, sends one of the waiting writes now.
    pub fn probe_now(&self) {
        self.0.health.probe_now();
    }

    /// Creates a missing assignment again. The confirmation goes to `on_late`. The create counts against the limit for repeated writes, so
    /// it delays no new write.
    pub fn recreate(&self, attachment: &Attachment) {
        drop(self.enqueue(attachment, Origin::Missing));
    }

    /// Creates the missing assignments of these attachments. Waits until the API server has answered all these creates, but at most
    /// `deadline`.
    pub async fn recreate_missing(&self, attachments: &[Attachment], deadline: Duration) {
        let due: Vec<&Attachment> = attachments.iter().filter(|attachment| attachment.needs_assignment()).collect();
        for attachment in due.iter().filter(|attachment| !self.busy_with(attachment.pair)) {
            self.recreate(attachment);
        }
        let all_answered = async {
            while due.iter().any(|attachment| self.busy_with(attachment.pair)) {
                tokio::time::sleep(ANSWER_POLL_INTERVAL).await;
            }
        };
        if tokio::time::timeout(deadline, all_answered).await.is_err() {
            tracing::debug!("the API server has not confirmed all missing assignments yet");
        }
    }

    fn enqueue(&self, attachment: &Attachment, origin: Origin) -> oneshot::Receiver<Confirmation> {
        let (reply, answer) = oneshot::channel();
        let Some((name, assignment)) = api_calls::assignment_of(attachment, &self.0.node_name) else {
            let why = format!("attachment {} has no address, so it gets no assignment", attachment.key);
            // Ignore the result: the send fails only if the caller has stopped waiting.
            let _ = reply.send(Confirmation::Refused(why));
            return answer;
        };
        let mut create = Operation::create(attachment.key.clone(), attachment.pair, Box::new(assignment), reply);
        if origin == Origin::Restored {
            // An earlier run of the agent may have sent this create, so the assignment may exist. The agent first reads it. Before that
            // read, a DEL must not drop the create from the queue, because nobody would delete the assignment.
            create = create.may_have_been_sent();
        }
        self.push(&name, create, origin != Origin::Add);
        answer
    }

    /// Deletes the assignment of an address if the assignment still names the attachment. The returned receiver is notified after the
    /// assignment is deleted.
    ///
    /// The pending deletion is saved on disk before this method returns, so a DEL need not wait for the API server. If `uid` is `None`, the
    /// agent reads the assignment first.
    pub fn delete(&self, name: &str, key: &AttachmentKey, uid: Option<String>) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        let deletion = PendingDeletion { name: name.to_owned(), key: key.clone(), uid: uid.clone() };
        if let Err(error) = self.0.deletions.save(&deletion) {
            tracing::warn!(
                "the agent could not save the pending deletion of IPAssignment {name}: {error}. Check that the agent can write to its run directory. If the agent restarts before the deletion, the resync deletes the assignment after its pod is gone"
            );
        }
        self.push(name, Operation::delete(key.clone(), uid, Some(reply)), false);
        answer
    }

    /// Whether this agent has recently deleted the assignment with this UID. The agent forgets its oldest deletions, and all of them at a
    /// restart.
    pub fn has_deleted(&self, uid: &str) -> bool {
        self.0.deleted.lock().contains(uid)
    }

    /// Deletes the assignment of an address pair, as [`AssignmentWriter::delete`] does. Returns `None` for a pair without addresses,
    /// because such a pair has no assignment.
    pub fn delete_pair(&self, pair: IpPair, key: &AttachmentKey, uid: Option<String>) -> Option<oneshot::Receiver<()>> {
        assignment_name(pair).map(|name| self.delete(&name, key, uid))
    }

    /// The number of assignments that the agent still has to create or delete.
    pub fn pending(&self) -> usize {
        self.0.pending.load(Ordering::Relaxed)
    }

    /// Whether a write for the assignment with this name is pending.
    pub fn busy(&self, name: &str) -> bool {
        self.queues().get(name).is_some_and(|queue| !queue.is_idle())
    }

    /// The names of the assignments with a pending write.
    pub fn busy_names(&self) -> Vec<String> {
        self.queues().iter().filter(|(_, queue)| !queue.is_idle()).map(|(name, _)| name.clone()).collect()
    }

    /// Whether a write for the assignment of this address pair is pending.
    pub fn busy_with(&self, pair: IpPair) -> bool {
        assignment_name(pair).is_some_and(|name| self.busy(&name))
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<String, AddressQueue>> {
        self.0.queues.lock()
    }
}

/// The name of the assignment of an address pair.
pub fn assignment_name(pair: IpPair) -> Option<String> {
    name::assignment(pair.ipv4, pair.ipv6)
}
