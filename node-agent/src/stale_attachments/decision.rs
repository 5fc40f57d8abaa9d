//! What one look may free, and the sentences about what it may not. Pure.

use std::collections::HashMap;
use std::fmt;

use bobbin_ipam::AttachmentKey;
use bobbin_ipam::deletion_guard::{Breaker, DeletionDecision};
use jiff::Timestamp;

use crate::ledger::Attachment;
use crate::verb::del::BY_HAND;

/// An attachment and when it began: a later ADD with the same key is another attachment.
pub(super) type Identity = (AttachmentKey, Timestamp);

/// Which attachment it is.
pub(super) fn identity(attachment: &Attachment) -> Identity {
    (attachment.key.clone(), attachment.created_at)
}

/// Why an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// A DEL, or an ADD that failed, began to end it.
    Del,
    /// Two looks found its network namespace gone.
    NetnsGone,
    /// Two reads found its pod gone.
    PodGone,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::Del => "ended what a DEL, or an ADD that failed, had begun to end",
            Evidence::NetnsGone => {
                "freed an attachment whose network namespace is gone and for which nobody called DEL"
            }
            Evidence::PodGone => "freed an attachment whose pod is gone and for which nobody called DEL",
        })
    }
}

/// What may be freed out of `population` attachments.
///
/// # Errors
/// Both together, or one of them alone, are too many: nothing may be freed.
pub(super) fn decide(
    netns_gone: DeletionDecision<Identity>,
    pods_gone: Vec<Identity>,
    population: usize,
) -> Result<HashMap<Identity, Evidence>, Breaker> {
    if let Some(breaker) = netns_gone.tripped {
        return Err(breaker);
    }
    let mut free: HashMap<Identity, Evidence> =
        pods_gone.into_iter().map(|identity| (identity, Evidence::PodGone)).collect();
    free.extend(netns_gone.free.into_iter().map(|identity| (identity, Evidence::NetnsGone)));
    match Breaker::of(free.len(), population) {
        Some(breaker) => Err(breaker),
        None => Ok(free),
    }
}

/// Why nothing was freed, and what to do about it.
pub(super) fn stopped_sentence(node: &str, Breaker { would_delete, population }: Breaker) -> String {
    format!(
        "{would_delete} of {population} attachments on node {node} look abandoned, which is too many to free without a DEL: none was freed; compare `crictl pods` with `kubectl get ipassignments --field-selector spec.nodeName={node}`, and {BY_HAND}"
    )
}

/// What a user is told of an interface that left its namespace.
pub(super) fn moved_sentence(attachment: &Attachment) -> String {
    let link = attachment.links.as_ref().map_or_else(String::new, |links| format!(" (host link {})", links.host_if));
    let who = attachment.who();
    format!(
        "the network namespace of {who} ({}) is gone, but its interface{link} was moved to another namespace: the address stays held; delete the pod to free it",
        attachment.pair
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(range: std::ops::Range<usize>) -> Vec<Identity> {
        range.map(|id| (AttachmentKey::new(format!("c{id}"), "eth0"), Timestamp::UNIX_EPOCH)).collect()
    }

    fn netns(range: std::ops::Range<usize>) -> DeletionDecision<Identity> {
        DeletionDecision { free: identities(range), tripped: None }
    }

    #[test]
    fn what_either_evidence_proves_is_freed() {
        let free = decide(netns(0..2), identities(1..4), 100).unwrap();
        assert_eq!(free.len(), 4);
        assert_eq!(free[&identities(0..1)[0]], Evidence::NetnsGone);
        assert_eq!(free[&identities(3..4)[0]], Evidence::PodGone);
    }

    #[test]
    fn both_together_count_for_the_breaker_and_each_attachment_once() {
        assert!(decide(netns(0..3), identities(0..4), 10).is_ok());
        let breaker = decide(netns(0..3), identities(3..5), 10).unwrap_err();
        assert_eq!(breaker, Breaker { would_delete: 5, population: 10 });
    }

    #[test]
    fn a_breaker_of_one_evidence_stops_the_other_too() {
        let tripped = Breaker { would_delete: 9, population: 10 };
        let stopped = DeletionDecision { free: Vec::new(), tripped: Some(tripped) };
        assert_eq!(decide(stopped, identities(0..1), 10), Err(tripped));
    }

    #[test]
    fn a_stopped_pass_names_the_node_the_numbers_and_the_next_command() {
        let sentence = stopped_sentence("n1", Breaker { would_delete: 9, population: 10 });
        for part in ["9 of 10", "node n1", "crictl pods", "CNI_COMMAND=DEL"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
