//! Creates and deletes the IPAssignments of this node's attachments at the API server.
//!
//! Each create and each delete takes one write. The writer sends the writes for one address one after another. It repeats each write until
//! it knows the outcome. The writer never decides which attachment has an address.

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

/// How many new writes may be in flight. A few connections carry this many; more writes would only open more connections.
const MAX_NEW_WRITES_IN_FLIGHT: usize = 16;
/// How many repeated or restored writes may be in flight, beside the new ones.
const MAX_REPLAYED_WRITES_IN_FLIGHT: usize = 4;
/// How often [`AssignmentWriter::recreate_missing`] checks whether its writes were answered.
const ANSWER_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// If the ADD's address already has an assignment, how long the ADD waits until the agent has read this assignment.
const OWNER_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The API server's answer to the creation of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The assignment exists and names the attachment.
    Created {
        /// The assignment's UID. A later delete call sends it as a precondition.
        uid: String,
    },
    /// The assignment of this address names another attachment. The attachment for which the agent sent the create needs another address.
    Taken {
        /// A description of the other attachment, for messages.
        by: String,
        /// The node that the assignment names.
        node: String,
        /// The attachment that the assignment names.
        holder: AttachmentKey,
        /// The assignment's UID.
        uid: String,
    },
    /// The API server refused to create the assignment. Contains the API server's message.
    Refused(String),
    /// An admission policy denies the assignment. The writer repeats the create. Contains the sentence of the policy.
    Denied(String),
}

/// A confirmation that arrived after its ADD had stopped waiting.
#[derive(Clone, Debug)]
pub struct LateConfirmation {
    /// The attachment whose assignment was written.
    pub key: AttachmentKey,
    /// The attachment's address.
    pub pair: IpPair,
    /// The API server's answer to the creation of the assignment.
    pub confirmation: Confirmation,
}

/// Why an assignment is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// An ADD waits for the assignment.
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
    /// Opens the writer. It calls `on_late` with each confirmation that no ADD waits for; `on_late` must not block.
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

    /// Resumes what an earlier run of the agent left: pending deletions, and attachments whose assignment is not confirmed.
    ///
    /// Call it once, inside the runtime, before the first ADD.
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

    /// Creates the assignment of an attachment. While the API server is unreachable, the receiver gets no answer.
    ///
    /// Wait for the answer with [`AssignmentWriter::confirmation`]. If no caller waits, the confirmation goes to `on_late`.
    pub fn create(&self, attachment: &Attachment) -> oneshot::Receiver<Confirmation> {
        // Probe the API server now, because the pause between two probes may be longer than an ADD waits.
        self.0.health.probe_now();
        self.enqueue(attachment, Origin::Add)
    }

    /// Waits up to `wait` for a confirmation. Waits longer while the agent reads which attachment an existing assignment names.
    ///
    /// A confirmation goes either to this caller or to `on_late`; none is lost.
    pub async fn confirmation(
        &self,
        mut answer: oneshot::Receiver<Confirmation>,
        pair: IpPair,
        wait: Duration,
    ) -> Option<Confirmation> {
        // Even with a timeout of zero, tokio would wait until its next millisecond.
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

    /// Creates a missing assignment again. Uses the permits for repeated writes, so that new writes don't have to wait. The confirmation
    /// goes to `on_late`.
    pub fn recreate(&self, attachment: &Attachment) {
        drop(self.enqueue(attachment, Origin::Missing));
    }

    /// Creates the missing assignments of these attachments. Returns when the API server has answered all creates, or after `deadline`.
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
            // Sending fails if the caller has stopped waiting, which is harmless.
            let _ = reply.send(Confirmation::Refused(why));
            return answer;
        };
        let mut create = Operation::create(attachment.key.clone(), attachment.pair, Box::new(assignment), reply);
        if origin == Origin::Restored {
            // An earlier run of the agent may have sent this create. So the agent reads the assignment first, and a DEL can't cancel the
            // create before that read.
            create = create.may_have_been_sent();
        }
        self.push(&name, create, origin != Origin::Add);
        answer
    }

    /// Deletes the assignment of an address if the assignment still names the attachment. The receiver is notified once the assignment no
    /// longer exists.
    ///
    /// The pending deletion is on disk when this method returns, so DEL need not wait. Without `uid`, the agent reads the assignment first.
    pub fn delete(&self, name: &str, key: &AttachmentKey, uid: Option<String>) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        let deletion = PendingDeletion { name: name.to_owned(), key: key.clone(), uid: uid.clone() };
        if let Err(error) = self.0.deletions.save(&deletion) {
            tracing::warn!(
                "the deletion of IPAssignment {name} could not be saved: {error}. Check that the run directory is writable. If the agent restarts now, the resync deletes the assignment once its pod is gone"
            );
        }
        self.push(name, Operation::delete(key.clone(), uid, Some(reply)), false);
        answer
    }

    /// Whether this agent has deleted the assignment with this UID since it started.
    pub fn has_deleted(&self, uid: &str) -> bool {
        self.0.deleted.lock().contains(uid)
    }

    /// Deletes the assignment of a pair; see [`AssignmentWriter::delete`]. Returns `None` for a pair without addresses, which has no
    /// assignment.
    pub fn delete_pair(&self, pair: IpPair, key: &AttachmentKey, uid: Option<String>) -> Option<oneshot::Receiver<()>> {
        assignment_name(pair).map(|name| self.delete(&name, key, uid))
    }

    /// How many assignments wait to be created or deleted.
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
