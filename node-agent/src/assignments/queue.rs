//! The writes that wait for one address, in their order, and what follows from each answer. Pure: the recorder asks for the next step,
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
        record: Box<IPAssignment>,
        /// Who wants the verdict.
        reply: oneshot::Sender<Confirmation>,
        /// An attempt was sent and nobody knows what came of it: read before sending again.
        doubt: bool,
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
        record: Box<IPAssignment>,
        reply: oneshot::Sender<Confirmation>,
    ) -> Operation {
        Operation::Create { key, pair, record, reply, doubt: false }
    }

    /// A create of which an attempt may have been sent before this queue was there.
    pub(super) fn in_doubt(mut self) -> Operation {
        if let Operation::Create { doubt, .. } = &mut self {
            *doubt = true;
        }
        self
    }

    pub(super) fn delete(key: AttachmentKey, uid: Option<String>, reply: Option<oneshot::Sender<()>>) -> Operation {
        Operation::Delete { key, uid, reply }
    }
}

/// The next call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Create this record.
    Post(Box<IPAssignment>),
    /// Read the record and say whose it is.
    Get(AttachmentKey),
    /// Delete the record with that UID.
    Delete(String),
}

/// What came of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Post: created; Get: it is there and the attachment's. Its UID.
    Ours(String),
    /// Get: another's.
    Others {
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
    Gone,
    /// The API server says no, and why.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

/// What is finished by an outcome.
pub(super) enum Completion {
    /// Nothing: another step follows.
    NotYet,
    /// Nothing, and why: the API server refuses what must not be given up. The same step again, after a pause.
    Later(String),
    /// A create has its verdict.
    Created { key: AttachmentKey, pair: IpPair, reply: oneshot::Sender<Confirmation>, confirmation: Confirmation },
    /// A delete is over.
    Deleted { key: AttachmentKey, reply: Option<oneshot::Sender<()>> },
}

/// The queue of one address. What is at its front may be under way.
#[derive(Default)]
pub(super) struct AddressQueue {
    writes: VecDeque<Operation>,
    /// The step that `next` gave and `learn` has not heard of.
    under_way: Option<Step>,
    /// A record stands in the place of the one that is to be created, and it is not known yet whose.
    found: bool,
}

impl AddressQueue {
    /// Queues a write. A delete calls off a create of the same attachment of which nothing was sent; both are then over, and the keys
    /// whose deletion is so done are returned.
    pub(super) fn push(&mut self, write: Operation) -> Vec<AttachmentKey> {
        let Operation::Delete { key, uid: None, .. } = &write else {
            self.writes.push_back(write);
            return Vec::new();
        };
        let unsent = self.writes.iter().enumerate().rposition(|(place, other)| {
            let sent = place == 0 && self.under_way.is_some();
            matches!(other, Operation::Create { key: created, doubt: false, .. } if created == key && !sent)
        });
        let Some(place) = unsent else {
            self.writes.push_back(write);
            return Vec::new();
        };
        self.writes.remove(place);
        let Operation::Delete { key, reply, .. } = write else { return Vec::new() };
        if let Some(reply) = reply {
            // DEL does not wait; nobody listening is the rule.
            let _ = reply.send(());
        }
        vec![key]
    }

    /// The call to make now; `None` when there is nothing left. The call counts as sent.
    pub(super) fn next(&mut self) -> Option<Step> {
        let step = match self.writes.front()? {
            Operation::Create { record, doubt: false, .. } => Step::Post(record.clone()),
            Operation::Create { key, doubt: true, .. } | Operation::Delete { key, uid: None, .. } => {
                Step::Get(key.clone())
            }
            Operation::Delete { uid: Some(uid), .. } => Step::Delete(uid.clone()),
        };
        self.under_way = Some(step.clone());
        Some(step)
    }

    /// Whether anything waits, without sending it.
    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether a record stands in the place of the one that is to be created, not known yet whose.
    pub(super) fn found_a_record(&self) -> bool {
        self.found
    }

    /// How many writes wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Takes in what came of the last step.
    pub(super) fn learn(&mut self, outcome: Outcome) -> Completion {
        let Some(step) = self.under_way.take() else { return Completion::NotYet };
        let called_off = self.called_off();
        self.found = outcome == Outcome::Exists;
        match (self.writes.front_mut(), step, outcome) {
            (Some(Operation::Create { .. }), _, Outcome::Ours(uid)) => self.created(Confirmation::Recorded { uid }),
            (Some(Operation::Create { .. }), _, Outcome::Others { by, node, holder, uid }) => {
                self.created(Confirmation::Taken { by, node, holder, uid })
            }
            // An unread record may be there, and an undeleted one is: neither is over.
            (Some(_), Step::Get(_) | Step::Delete(_), Outcome::Refused(why)) => Completion::Later(why),
            (Some(Operation::Create { .. }), _, Outcome::Refused(why)) => self.created(Confirmation::Refused(why)),
            (Some(Operation::Create { doubt, .. }), Step::Post(_), Outcome::Exists | Outcome::Unknown) => {
                *doubt = true;
                Completion::NotYet
            }
            (Some(Operation::Create { doubt, .. }), Step::Get(_), Outcome::Absent) => {
                if called_off {
                    return self.created(Confirmation::Refused("the attachment is gone".to_owned()));
                }
                *doubt = false;
                Completion::NotYet
            }
            (Some(Operation::Delete { uid, .. }), Step::Get(_), Outcome::Ours(found)) => {
                *uid = Some(found);
                Completion::NotYet
            }
            (None | Some(Operation::Create { .. }), ..) | (Some(Operation::Delete { .. }), _, Outcome::Unknown) => {
                Completion::NotYet
            }
            (Some(Operation::Delete { .. }), ..) => self.deleted(),
        }
    }

    /// Whether the attachment that is being recorded is to be deleted again.
    fn called_off(&self) -> bool {
        let Some(Operation::Create { key: created, .. }) = self.writes.front() else { return false };
        self.writes.iter().skip(1).any(|write| matches!(write, Operation::Delete { key, .. } if key == created))
    }

    fn created(&mut self, confirmation: Confirmation) -> Completion {
        let Some(Operation::Create { key, pair, reply, .. }) = self.writes.pop_front() else {
            return Completion::NotYet;
        };
        if let Confirmation::Recorded { uid } = &confirmation {
            self.name_uid(&key, uid);
        }
        Completion::Created { key, pair, reply, confirmation }
    }

    /// The delete behind a create needs no read to know the UID; one that knew an earlier record's UID means this one all the same.
    fn name_uid(&mut self, created: &AttachmentKey, found: &str) {
        for write in &mut self.writes {
            if let Operation::Delete { key, uid, .. } = write
                && key == created
            {
                *uid = Some(found.to_owned());
            }
        }
    }

    fn deleted(&mut self) -> Completion {
        let Some(Operation::Delete { key, reply, .. }) = self.writes.pop_front() else { return Completion::NotYet };
        Completion::Deleted { key, reply }
    }
}

#[cfg(test)]
mod tests;
