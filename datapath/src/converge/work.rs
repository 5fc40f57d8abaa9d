//! One comparison's findings so far, and the socket to put things right with.

use std::collections::HashSet;

use bobbin_ipam::{AttachmentKey, BlockRange};

use crate::attachment::Wiring;
use crate::converge::DirectRoute;
use crate::finding::{Finding, FindingKind};
use crate::in_place;
use crate::socket::{Ask, KernelError, Netlink, is_gone};

/// What something on the node belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Node,
    Pod(AttachmentKey),
    Block(BlockRange),
    Direct(DirectRoute),
}

/// The same, and how a change of it is to be called.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    subject: Subject,
    kind: FindingKind,
}

impl Owner {
    pub(super) fn new(subject: Subject, was_in_place: bool) -> Self {
        Self { subject, kind: in_place::kind(was_in_place) }
    }

    pub(super) fn pod(pod: &Wiring, was_in_place: bool) -> Self {
        Self::new(Subject::Pod(pod.key.clone()), was_in_place)
    }

    /// What nobody wants (any more): its removal is no repair.
    pub(super) fn node() -> Self {
        Self::new(Subject::Node, false)
    }
}

pub(super) struct Work<'a> {
    pub(super) netlink: &'a mut Netlink,
    pub(super) findings: Vec<Finding>,
    wrong: HashSet<Subject>,
}

impl<'a> Work<'a> {
    pub(super) fn new(netlink: &'a mut Netlink) -> Self {
        Self { netlink, findings: Vec::new(), wrong: HashSet::new() }
    }

    /// Whether all of it is right now.
    pub(super) fn is_right(&self, subject: &Subject) -> bool {
        !self.wrong.contains(subject)
    }

    pub(super) fn found(&mut self, owner: &Owner, kind: FindingKind, what: String) {
        if matches!(kind, FindingKind::NotRepairable | FindingKind::LinkMissing) {
            self.wrong.insert(owner.subject.clone());
        }
        let attachment = match &owner.subject {
            Subject::Pod(key) => Some(key.clone()),
            _ => None,
        };
        self.findings.push(Finding { kind, attachment, what });
    }

    /// Something stays wrong.
    pub(super) fn refused(&mut self, owner: &Owner, why: String) {
        self.found(owner, FindingKind::NotRepairable, why);
    }

    /// Something was put right, or could not be.
    pub(super) fn note(&mut self, owner: &Owner, what: String, result: Result<(), KernelError>) {
        match result {
            Ok(()) => self.found(owner, owner.kind, what),
            Err(error) => self.refused(owner, format!("this could not be done: {what}: {error}")),
        }
    }

    pub(super) fn ask(&mut self, owner: &Owner, what: String, ask: Ask) {
        let result = self.send(ask);
        self.note(owner, what, result);
    }

    /// Removes something; what is gone by itself is no finding.
    pub(super) fn remove(&mut self, owner: &Owner, what: String, ask: Ask) {
        match self.send(ask) {
            Err(error) if is_gone(&error) => {}
            result => self.note(owner, what, result),
        }
    }

    pub(super) fn send(&mut self, ask: Ask) -> Result<(), KernelError> {
        self.netlink.one(ask.what, ask.message).map(drop)
    }
}
