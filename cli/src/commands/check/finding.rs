//! One finding of the check, and which findings two observations confirm. Pure.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Some pods have no network or may soon have none, or two pods have the same address.
    Error,
    /// Addresses are held without use, or the check can't see something.
    Warning,
    /// Nobody needs to act. Such a finding does not change the exit code.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        })
    }
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) enum Kind {
    NoOperator,
    CNIConfigShadowed,
    InstallFailed,
    AddressHeldTwice,
    AddressOfAnotherAttachment,
    BlockOfAnotherNode,
    BlockLost,
    BlockDoubted,
    BlockNotExported,
    BlockUnknownToNode,
    BrokenAttachment,
    PodWithoutNetwork,
    AttachmentWithoutAssignment,
    AssignmentWithoutAttachment,
    VoidAssignment,
    NetworkNotRepaired,
    ChainedPluginProblem,
    InstallationProblem,
    AgentUnreachable,
    DeletedNode,
    RefusedSubnet,
    NoNodeAdmitted,
    UndecodableObject,
    BobbinBeingRemoved,
    PodsOfAnotherPlugin,
}

impl Kind {
    /// Whether Bobbin's remedy is the operator's work.
    fn is_for_operator(self) -> bool {
        matches!(self, Kind::VoidAssignment | Kind::DeletedNode | Kind::RefusedSubnet)
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) kind: Kind,
    /// The object that the finding is about.
    pub(crate) object: String,
    /// What is wrong.
    pub(crate) what: String,
    /// Since when, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    /// What Bobbin does about the problem by itself, and by when.
    pub(crate) bobbin: String,
    /// What a person must do.
    pub(crate) you: String,
    /// Tells apart findings with the same `kind` and `object`, for example by a container ID. A finding has the same
    /// identity in both observations.
    #[serde(skip)]
    pub(crate) identity: String,
}

impl Finding {
    /// The finding while no operator leads.
    #[must_use]
    pub(crate) fn without_operator(mut self) -> Self {
        if self.kind.is_for_operator() {
            self.bobbin =
                format!("nothing now, because no operator is leading; when an operator leads, {}", self.bobbin);
        }
        self
    }

    fn key(&self) -> (Kind, &str, &str) {
        (self.kind, &self.object, &self.identity)
    }
}

/// Whether somebody needs to act.
pub(crate) fn is_wrong(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity != Severity::Info)
}

/// The findings that both observations contain, in the version of the second observation. The worst come first.
pub(crate) fn confirmed(first: &[Finding], second: Vec<Finding>) -> Vec<Finding> {
    let seen: HashSet<_> = first.iter().map(Finding::key).collect();
    let mut findings: Vec<Finding> = second.into_iter().filter(|finding| seen.contains(&finding.key())).collect();
    findings
        .sort_by(|one, other| (one.severity, one.kind, &one.object).cmp(&(other.severity, other.kind, &other.object)));
    findings
}
