//! Keeps the pending writes of one address in order, and handles the answer to each call. Pure: the queue runner makes the calls.

use std::collections::VecDeque;

use bobbin_crds::IPAssignment;
use bobbin_ipam::{AttachmentKey, IpPair};
use tokio::sync::oneshot;

use super::Confirmation;

/// A queued write of an assignment.
pub(super) enum Operation {
    /// Create an assignment.
    Create {
        /// The attachment that the assignment belongs to.
        key: AttachmentKey,
        /// The address that the assignment is for.
        pair: IpPair,
        /// The assignment to create.
        assignment: Box<IPAssignment>,
        /// Receives the confirmation.
        reply: oneshot::Sender<Confirmation>,
        /// True if the agent may have sent the create already, but does not know the outcome. The agent then reads the assignment before it
        /// sends the create again.
        maybe_sent: bool,
    },
    /// Delete the assignment of an attachment.
    Delete {
        /// The attachment that the assignment belongs to.
        key: AttachmentKey,
        /// The assignment's UID, if known.
        uid: Option<String>,
        /// Receives a notification when the assignment is deleted.
        reply: Option<oneshot::Sender<()>>,
    },
}

impl Operation {
    pub(super) fn create(
        key: AttachmentKey,
        pair: IpPair,
        assignment: Box<IPAssignment>,
        reply: oneshot::Sender<Confirmation>,
    ) -> Operation {
        Operation::Create { key, pair, assignment, reply, maybe_sent: false }
    }

    /// Marks a create that an earlier run of the agent may have sent.
    pub(super) fn may_have_been_sent(mut self) -> Operation {
        if let Operation::Create { maybe_sent, .. } = &mut self {
            *maybe_sent = true;
        }
        self
    }

    pub(super) fn delete(key: AttachmentKey, uid: Option<String>, reply: Option<oneshot::Sender<()>>) -> Operation {
        Operation::Delete { key, uid, reply }
    }
}

/// The next call of an address queue to the API server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AssignmentCall {
    /// Create this assignment.
    Create(Box<IPAssignment>),
    /// Read the assignment to find out whether the assignment names this attachment.
    Get(AttachmentKey),
    /// Delete the assignment with this UID.
    Delete(String),
}

/// The result of a call about an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallResult {
    /// The result of a create: the API server created the assignment. The result of a get: the assignment exists and names the attachment.
    /// Contains the assignment's UID.
    Own(String),
    /// The result of a get: the assignment names another attachment.
    OtherOwner {
        /// A description of the other attachment, for messages.
        by: String,
        /// The node that the assignment names.
        node: String,
        /// The attachment that the assignment names.
        holder: AttachmentKey,
        /// The assignment's UID.
        uid: String,
    },
    /// The result of a get or a delete: the assignment does not exist.
    Absent,
    /// The result of a create: an assignment with this name already exists.
    Exists,
    /// The result of a delete: the API server deleted the assignment, or the assignment did not exist.
    Deleted,
    /// The result of a delete: the existing assignment has another UID.
    OtherUid,
    /// The API server refused the call. Contains the API server's message.
    Refused(String),
    /// The result of a create: an admission policy denied the assignment. A later create may succeed. Contains the policy's message.
    Denied(String),
    /// The outcome of the call is unknown.
    Unknown,
}

/// Says whether the result of a call completes a queued operation, and which one.
pub(super) enum Completion {
    /// No operation is complete, and another call follows.
    Pending,
    /// No operation is complete, because the API server refused a call. The agent repeats the call after a pause. Contains the API server's
    /// message.
    RetryLater(String),
    /// No operation is complete, because an admission policy denied a create. The agent repeats the create after a pause. Contains the
    /// policy's message.
    Denied { key: AttachmentKey, pair: IpPair, why: String },
    /// A create is complete, because its confirmation is known.
    Created { key: AttachmentKey, pair: IpPair, reply: oneshot::Sender<Confirmation>, confirmation: Confirmation },
    /// A delete is complete.
    Deleted { key: AttachmentKey, reply: Option<oneshot::Sender<()>> },
}

/// The queued operations of one address. A call for the first operation may be waiting for its answer.
#[derive(Default)]
pub(super) struct AddressQueue {
    operations: VecDeque<Operation>,
    /// The call that is waiting for its result. `next` sets this field, and `complete_call` clears it.
    in_flight: Option<AssignmentCall>,
    /// True if the last call was a create that failed because the assignment exists, and the agent has not read the assignment yet.
    found: bool,
}

impl AddressQueue {
    /// Queues an operation. A delete without a UID cancels an unsent create of the same attachment, which completes both operations.
    ///
    /// Returns the keys of the attachments whose deletions this call completed.
    pub(super) fn push(&mut self, write: Operation) -> Vec<AttachmentKey> {
        let Operation::Delete { key, uid: None, .. } = &write else {
            self.operations.push_back(write);
            return Vec::new();
        };
        let unsent = self.operations.iter().enumerate().rposition(|(place, other)| {
            let sent = place == 0 && self.in_flight.is_some();
            matches!(other, Operation::Create { key: created, maybe_sent: false, .. } if created == key && !sent)
        });
        let Some(place) = unsent else {
            self.operations.push_back(write);
            return Vec::new();
        };
        self.operations.remove(place);
        let Operation::Delete { key, reply, .. } = write else { return Vec::new() };
        if let Some(reply) = reply {
            // Ignore the result: DEL does not wait for the deletion, so the receiver usually no longer exists.
            let _ = reply.send(());
        }
        vec![key]
    }

    /// Returns the next call and marks it as sent. Returns `None` if no operation is left.
    pub(super) fn next(&mut self) -> Option<AssignmentCall> {
        let step = match self.operations.front()? {
            Operation::Create { assignment, maybe_sent: false, .. } => AssignmentCall::Create(assignment.clone()),
            Operation::Create { key, maybe_sent: true, .. } | Operation::Delete { key, uid: None, .. } => {
                AssignmentCall::Get(key.clone())
            }
            Operation::Delete { uid: Some(uid), .. } => AssignmentCall::Delete(uid.clone()),
        };
        self.in_flight = Some(step.clone());
        Some(step)
    }

    /// Whether no operation is queued.
    pub(super) fn is_idle(&self) -> bool {
        self.operations.is_empty()
    }

    /// Whether the last call was a create that failed because the assignment exists, and the agent has not read the assignment yet.
    pub(super) fn found_existing(&self) -> bool {
        self.found
    }

    /// The number of the queue's operations that are not complete.
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// Records the result of the call in flight. Returns whether the result completes an operation.
    pub(super) fn complete_call(&mut self, outcome: CallResult) -> Completion {
        let Some(step) = self.in_flight.take() else { return Completion::Pending };
        let cancelled = self.cancelled();
        self.found = outcome == CallResult::Exists;
        match (self.operations.front_mut(), step, outcome) {
            (Some(Operation::Create { .. }), _, CallResult::Own(uid)) => self.created(Confirmation::Created { uid }),
            (Some(Operation::Create { .. }), _, CallResult::OtherOwner { by, node, holder, uid }) => {
                self.created(Confirmation::Taken { by, node, holder, uid })
            }
            // A refused read or delete does not complete the operation, because the assignment may still exist.
            (Some(_), AssignmentCall::Get(_) | AssignmentCall::Delete(_), CallResult::Refused(why)) => {
                Completion::RetryLater(why)
            }
            (Some(Operation::Create { .. }), _, CallResult::Refused(why)) => self.created(Confirmation::Refused(why)),
            // While a policy denies the assignment, the agent repeats the create. The attachment keeps its address, because this node owns
            // the address's block.
            (Some(Operation::Create { key, pair, .. }), _, CallResult::Denied(why)) => {
                if cancelled {
                    return self.created(Confirmation::Refused(
                        "the attachment ended before the API server accepted its assignment".to_owned(),
                    ));
                }
                Completion::Denied { key: key.clone(), pair: *pair, why }
            }
            (
                Some(Operation::Create { maybe_sent, .. }),
                AssignmentCall::Create(_),
                CallResult::Exists | CallResult::Unknown,
            ) => {
                *maybe_sent = true;
                Completion::Pending
            }
            (Some(Operation::Create { maybe_sent, .. }), AssignmentCall::Get(_), CallResult::Absent) => {
                if cancelled {
                    return self.created(Confirmation::Refused(
                        "the attachment ended before its assignment was created".to_owned(),
                    ));
                }
                *maybe_sent = false;
                Completion::Pending
            }
            (Some(Operation::Delete { uid, .. }), AssignmentCall::Get(_), CallResult::Own(found)) => {
                *uid = Some(found);
                Completion::Pending
            }
            // The existing assignment has another UID than the delete, but may still name the delete's attachment, for example after a
            // restore of etcd. So the agent reads the assignment.
            (Some(Operation::Delete { uid, .. }), AssignmentCall::Delete(_), CallResult::OtherUid) => {
                *uid = None;
                Completion::Pending
            }
            (None | Some(Operation::Create { .. }), ..) | (Some(Operation::Delete { .. }), _, CallResult::Unknown) => {
                Completion::Pending
            }
            (Some(Operation::Delete { .. }), ..) => self.deleted(),
        }
    }

    /// Whether the first operation is a create and a later operation is a delete for the same attachment.
    fn cancelled(&self) -> bool {
        let Some(Operation::Create { key: created, .. }) = self.operations.front() else { return false };
        self.operations.iter().skip(1).any(|write| matches!(write, Operation::Delete { key, .. } if key == created))
    }

    fn created(&mut self, confirmation: Confirmation) -> Completion {
        let Some(Operation::Create { key, pair, reply, .. }) = self.operations.pop_front() else {
            return Completion::Pending;
        };
        if let Confirmation::Created { uid } = &confirmation {
            self.set_deletion_uid(&key, uid);
        }
        Completion::Created { key, pair, reply, confirmation }
    }

    /// Stores the UID of the created assignment in the attachment's queued deletes, so that these deletes need no read. Replaces the UID of
    /// an earlier assignment.
    fn set_deletion_uid(&mut self, created: &AttachmentKey, found: &str) {
        for write in &mut self.operations {
            if let Operation::Delete { key, uid, .. } = write
                && key == created
            {
                *uid = Some(found.to_owned());
            }
        }
    }

    fn deleted(&mut self) -> Completion {
        let Some(Operation::Delete { key, reply, .. }) = self.operations.pop_front() else {
            return Completion::Pending;
        };
        Completion::Deleted { key, reply }
    }
}

#[cfg(test)]
mod tests;
