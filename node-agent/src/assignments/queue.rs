//! The operations that wait for one address, in their order, and what follows from each answer. Pure: the recorder asks for the next step,
//! makes the call, and tells what came of it.

use std::collections::VecDeque;

use bobbin_crds::IPAssignment;
use bobbin_ipam::{AttachmentKey, IpPair};
use tokio::sync::oneshot;

use super::Confirmation;

/// Something that is to be written.
pub(super) enum Operation {
    /// A record is to be there.
    Create {
        /// Whose.
        key: AttachmentKey,
        /// The address.
        pair: IpPair,
        /// The record.
        assignment: Box<IPAssignment>,
        /// Who wants the verdict.
        reply: oneshot::Sender<Confirmation>,
        /// An attempt was sent and nobody knows what came of it: read before sending again.
        maybe_sent: bool,
    },
    /// The record of that attachment is to be gone.
    Delete {
        /// Whose.
        key: AttachmentKey,
        /// Its UID, if known.
        uid: Option<String>,
        /// Who wants to know.
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

    /// A create of which an attempt may have been sent before this queue was there.
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

/// The next call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AssignmentCall {
    /// Create this record.
    Create(Box<IPAssignment>),
    /// Read the record and say whose it is.
    Get(AttachmentKey),
    /// Delete the record with that UID.
    Delete(String),
}

/// What came of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallResult {
    /// Post: created; Get: it is there and the attachment's. Its UID.
    Own(String),
    /// Get: another's.
    OtherOwner {
        /// Whose, in words.
        by: String,
        /// The node that it names.
        node: String,
        /// The attachment that it names.
        holder: AttachmentKey,
        /// Its UID.
        uid: String,
    },
    /// Get, Delete: there is none.
    Absent,
    /// Post: there is one already.
    Exists,
    /// Delete: done, or what is there has another UID.
    Deleted,
    /// The API server says no, and why.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

/// What is finished by an outcome.
pub(super) enum Completion {
    /// Nothing: another step follows.
    Pending,
    /// Nothing, and why: the API server refuses what must not be given up. The same step again, after a pause.
    RetryLater(String),
    /// A create has its verdict.
    Created { key: AttachmentKey, pair: IpPair, reply: oneshot::Sender<Confirmation>, confirmation: Confirmation },
    /// A delete is over.
    Deleted { key: AttachmentKey, reply: Option<oneshot::Sender<()>> },
}

/// The queue of one address. What is at its front may be under way.
#[derive(Default)]
pub(super) struct AddressQueue {
    operations: VecDeque<Operation>,
    /// The step that `next` gave and `learn` has not heard of.
    in_flight: Option<AssignmentCall>,
    /// A record stands in the place of the one that is to be created, and it is not known yet whose.
    found: bool,
}

impl AddressQueue {
    /// Queues a write. A delete calls off a create of the same attachment of which nothing was sent; both are then over, and the keys
    /// whose deletion is so done are returned.
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
            // DEL does not wait; nobody listening is the rule.
            let _ = reply.send(());
        }
        vec![key]
    }

    /// The call to make now; `None` when there is nothing left. The call counts as sent.
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

    /// Whether anything waits, without sending it.
    pub(super) fn is_idle(&self) -> bool {
        self.operations.is_empty()
    }

    /// Whether a record stands in the place of the one that is to be created, not known yet whose.
    pub(super) fn found_existing(&self) -> bool {
        self.found
    }

    /// How many operations wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// Takes in what came of the last step.
    pub(super) fn complete_call(&mut self, outcome: CallResult) -> Completion {
        let Some(step) = self.in_flight.take() else { return Completion::Pending };
        let cancelled = self.cancelled();
        self.found = outcome == CallResult::Exists;
        match (self.operations.front_mut(), step, outcome) {
            (Some(Operation::Create { .. }), _, CallResult::Own(uid)) => self.created(Confirmation::Created { uid }),
            (Some(Operation::Create { .. }), _, CallResult::OtherOwner { by, node, holder, uid }) => {
                self.created(Confirmation::Taken { by, node, holder, uid })
            }
            // An unread record may be there, and an undeleted one is: neither is over.
            (Some(_), AssignmentCall::Get(_) | AssignmentCall::Delete(_), CallResult::Refused(why)) => {
                Completion::RetryLater(why)
            }
            (Some(Operation::Create { .. }), _, CallResult::Refused(why)) => self.created(Confirmation::Refused(why)),
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
                    return self.created(Confirmation::Refused("the attachment is gone".to_owned()));
                }
                *maybe_sent = false;
                Completion::Pending
            }
            (Some(Operation::Delete { uid, .. }), AssignmentCall::Get(_), CallResult::Own(found)) => {
                *uid = Some(found);
                Completion::Pending
            }
            (None | Some(Operation::Create { .. }), ..) | (Some(Operation::Delete { .. }), _, CallResult::Unknown) => {
                Completion::Pending
            }
            (Some(Operation::Delete { .. }), ..) => self.deleted(),
        }
    }

    /// Whether the attachment that is being recorded is to be deleted again.
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

    /// The delete behind a create needs no read to know the UID; one that knew an earlier record's UID means this one all the same.
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
