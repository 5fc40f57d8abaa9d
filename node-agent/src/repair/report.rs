//! Sorts the findings of a comparison into what is told, and how. Pure.

use std::collections::HashSet;

use bobbin_datapath::{Drift, DriftKind};
use bobbin_ipam::AttachmentKey;

use crate::ledger::Attachment;

/// Repairs named in one event.
const NAMED: usize = 5;

/// What was told already, so that it is not told with every pass.
#[derive(Debug, Default)]
pub(super) struct Told {
    not_repairable: HashSet<String>,
    broken: HashSet<AttachmentKey>,
}

impl Told {
    /// The attachments that were not broken when this was last asked.
    pub(super) fn newly_broken<'a>(&mut self, broken: &'a [Attachment]) -> Vec<&'a Attachment> {
        let before = std::mem::replace(&mut self.broken, broken.iter().map(|each| each.key.clone()).collect());
        broken.iter().filter(|each| !before.contains(&each.key)).collect()
    }
}

/// The findings of one comparison, by what is done with them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Nobody interfered: for the debug log.
    pub(super) applied: Vec<String>,
    /// Another program interfered: log, metric, event.
    pub(super) repaired: Vec<String>,
    /// Still wrong, and not told yet.
    pub(super) not_repairable: Vec<String>,
    /// Attachments without a link.
    pub(super) link_missing: Vec<AttachmentKey>,
}

impl Report {
    pub(super) fn of(findings: Vec<Drift>, told: &mut Told) -> Self {
        let mut report = Self::default();
        let mut open = HashSet::new();
        for Drift { kind, attachment, what } in findings {
            match kind {
                DriftKind::Applied => report.applied.push(what),
                DriftKind::Repaired => report.repaired.push(what),
                DriftKind::NotRepairable => {
                    if !told.not_repairable.contains(&what) && open.insert(what.clone()) {
                        report.not_repairable.push(what);
                    } else {
                        open.insert(what);
                    }
                }
                DriftKind::LinkMissing => report.link_missing.extend(attachment),
            }
        }
        told.not_repairable = open;
        report
    }

    /// One sentence for all repairs.
    pub(super) fn repaired_sentence(&self) -> Option<String> {
        let named = self.repaired.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        let rest = self.repaired.len().saturating_sub(NAMED);
        match (self.repaired.is_empty(), rest) {
            (true, _) => None,
            (false, 0) => {
                Some(format!("another program changed the node's network, which the agent repaired: {named}"))
            }
            (false, rest) => Some(format!(
                "another program changed the node's network, which the agent repaired: {named}; and {rest} more, see the agent's log"
            )),
        }
    }
}

/// The sentence for a pod whose host link is gone. `host_if` is the link's name if ADD's answer is not known.
pub(super) fn lost_interface(attachment: &Attachment, host_if: &str) -> String {
    let name = attachment.links.as_ref().map_or(host_if, |links| &links.host_if);
    let who = attachment.who();
    format!(
        "{who} ({}) has lost its interface {name}: it has no network; delete the pod to restore it",
        attachment.pair
    )
}

#[cfg(test)]
mod tests;
