//! Groups the findings of a reconcile pass. The agent reports each group in a different way. This module has no side effects.

use std::collections::HashSet;

use bobbin_datapath::{Drift, DriftKind, DriftSubject};
use bobbin_ipam::AttachmentKey;

use crate::state::Attachment;

/// The maximum number of repairs that one event names.
const MAX_NAMED_REPAIRS: usize = 5;

/// The network problems that the agent has already reported. Later passes do not report these problems again.
#[derive(Debug, Default)]
pub(super) struct Reported {
    not_repairable: HashSet<String>,
    broken: HashSet<AttachmentKey>,
}

impl Reported {
    /// The differences that the last pass could not repair, sorted.
    pub(super) fn open(&self) -> Vec<String> {
        let mut open: Vec<String> = self.not_repairable.iter().cloned().collect();
        open.sort();
        open
    }

    /// Returns the attachments in `broken` that were not in `broken` at the previous call of this method.
    pub(super) fn newly_broken<'a>(&mut self, broken: &'a [Attachment]) -> Vec<&'a Attachment> {
        let before = std::mem::replace(&mut self.broken, broken.iter().map(|each| each.key.clone()).collect());
        broken.iter().filter(|each| !before.contains(&each.key)).collect()
    }
}

/// The findings of one reconcile pass, grouped for the agent's reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Changes that the agent made because the desired state is new or changed. The agent reports them in the debug log.
    pub(super) applied: Vec<String>,
    /// Changes of other programs that the agent repaired. The agent reports them in the log, in a metric and in an event.
    pub(super) repaired: Vec<String>,
    /// For each repaired object, what it belongs to: the node, a pod, a block or a direct route.
    pub(super) repaired_subjects: Vec<DriftSubject>,
    /// Differences that the agent could not repair and has not reported before.
    pub(super) not_repairable: Vec<String>,
    /// Attachments without a link.
    pub(super) link_missing: Vec<AttachmentKey>,
}

impl Report {
    pub(super) fn of(findings: Vec<Drift>, reported: &mut Reported) -> Self {
        let mut report = Self::default();
        let mut open = HashSet::new();
        for Drift { kind, subject, attachment, what } in findings {
            match kind {
                DriftKind::Applied => report.applied.push(what),
                DriftKind::Repaired => {
                    report.repaired_subjects.push(subject);
                    report.repaired.push(what);
                }
                DriftKind::NotRepairable => {
                    if !reported.not_repairable.contains(&what) && open.insert(what.clone()) {
                        report.not_repairable.push(what);
                    } else {
                        open.insert(what);
                    }
                }
                DriftKind::LinkMissing => report.link_missing.extend(attachment),
            }
        }
        reported.not_repairable = open;
        report
    }

    /// One message for all repairs of a pass.
    pub(super) fn repaired_sentence(&self) -> Option<String> {
        let named = self.repaired.iter().take(MAX_NAMED_REPAIRS).map(String::as_str).collect::<Vec<_>>().join("; ");
        let rest = self.repaired.len().saturating_sub(MAX_NAMED_REPAIRS);
        match (self.repaired.is_empty(), rest) {
            (true, _) => None,
            (false, 0) => {
                Some(format!("another program changed the node's network, and the agent repaired it: {named}"))
            }
            (false, rest) => Some(format!(
                "another program changed the node's network, and the agent repaired it: {named}; and {rest} more; see the agent's log"
            )),
        }
    }
}

/// The message for a pod whose host link is gone. The message names the link in the attachment, or `host_if` if the attachment has no link
/// data.
pub(super) fn lost_interface(attachment: &Attachment, host_if: &str) -> String {
    let name = attachment.links.as_ref().map_or(host_if, |links| &links.host_if);
    let who = attachment.who();
    format!(
        "{who} ({}) has lost its interface {name} and has no network; delete the pod, so that a new pod gets a network",
        attachment.pair
    )
}

#[cfg(test)]
mod tests;
