//! The state of one reconcile pass: the differences found so far, and the sockets for corrections.

use std::collections::HashSet;

use bobbin_ipam::{AttachmentKey, BlockRange};

use crate::netlink::{KernelError, Netlink, Request, is_gone};
use crate::node::desired::DirectRoute;
use crate::node::drift::{Drift, DriftKind, DriftSubject};
use crate::pod::attachment::Wiring;
use crate::state::State;

/// What an object in the node's network belongs to: the node, a pod, a block or a direct route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Node,
    Pod(AttachmentKey),
    Block(BlockRange),
    DirectRoute(DirectRoute),
}

/// What an object belongs to, and the drift kind to report when the pass changes the object.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    subject: Subject,
    kind: DriftKind,
}

impl Owner {
    pub(super) fn new(subject: Subject, was_programmed: bool) -> Self {
        Self { subject, kind: DriftKind::of_change(was_programmed) }
    }

    pub(super) fn pod(pod: &Wiring, was_programmed: bool) -> Self {
        Self::new(Subject::Pod(pod.key.clone()), was_programmed)
    }

    /// The owner of the node's setup and of objects that should not exist. The removal of such an object is not a
    /// repair.
    pub(super) fn node() -> Self {
        Self::new(Subject::Node, false)
    }
}

pub(super) struct Pass<'a> {
    pub(super) state: &'a State,
    /// The socket for dumps and lookups. Corrections use rtnetlink's handle instead.
    pub(super) netlink: &'a mut Netlink,
    pub(super) drifts: Vec<Drift>,
    wrong: HashSet<Subject>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(state: &'a State, netlink: &'a mut Netlink) -> Self {
        Self { state, netlink, drifts: Vec::new(), wrong: HashSet::new() }
    }

    /// Whether all objects of a subject are correct now.
    pub(super) fn is_correct(&self, subject: &Subject) -> bool {
        !self.wrong.contains(subject)
    }

    pub(super) fn report(&mut self, owner: &Owner, kind: DriftKind, what: String) {
        if matches!(kind, DriftKind::NotRepairable | DriftKind::LinkMissing) {
            self.wrong.insert(owner.subject.clone());
        }
        let (subject, attachment) = match &owner.subject {
            Subject::Node => (DriftSubject::Node, None),
            Subject::Pod(key) => (DriftSubject::Pod, Some(key.clone())),
            Subject::Block(_) => (DriftSubject::Block, None),
            Subject::DirectRoute(_) => (DriftSubject::DirectRoute, None),
        };
        self.drifts.push(Drift { kind, subject, attachment, what });
    }

    /// Reports an object that the agent could not correct.
    pub(super) fn not_repairable(&mut self, owner: &Owner, why: String) {
        self.report(owner, DriftKind::NotRepairable, why);
    }

    /// Reports an attempt to correct an object. The pass reports a success with the owner's drift kind, and a failure
    /// as not repairable.
    pub(super) fn note(&mut self, owner: &Owner, what: String, result: Result<(), KernelError>) {
        match result {
            Ok(()) => self.report(owner, owner.kind, what),
            Err(error) => self.not_repairable(owner, format!("the correction \"{what}\" failed: {error}")),
        }
    }

    /// Sends a request that corrects an object, and reports the result.
    pub(super) fn correct(&mut self, owner: &Owner, what: String, request: Request) {
        let result = self.send(request);
        self.note(owner, what, result);
    }

    /// Removes an object and reports the removal, unless the object was already gone.
    pub(super) fn remove(&mut self, owner: &Owner, what: String, request: Request) {
        match self.send(request) {
            Err(error) if is_gone(&error) => {}
            result => self.note(owner, what, result),
        }
    }

    pub(super) fn send(&mut self, request: Request) -> Result<(), KernelError> {
        self.state.handle.send_one(request)
    }
}
