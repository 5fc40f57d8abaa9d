//! Decides which attachments one check may remove, and writes the messages about the attachments that must stay. This module does no I/O.

use std::collections::HashMap;
use std::fmt;

use bobbin_ipam::deletion_guard::{Breaker, DeletionDecision};

use crate::cni::del::MANUAL_DEL;
use crate::state::{Attachment, AttachmentId};

/// Why the agent removes an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemovalReason {
    /// A DEL or a failed ADD has begun to remove the attachment.
    Del,
    /// Two checks found the attachment's network namespace gone.
    NetnsGone,
    /// Two reads found the attachment's pod gone.
    PodGone,
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemovalReason::Del => "a DEL or a failed ADD began to remove an attachment; the removal is now complete",
            RemovalReason::NetnsGone => {
                "removed a stale attachment, because its network namespace is gone and the runtime did not call DEL"
            }
            RemovalReason::PodGone => {
                "removed a stale attachment, because its pod is gone and the runtime did not call DEL"
            }
        })
    }
}

/// Decides which attachments the check may remove. `population` is the number of checked attachments.
///
/// # Errors
/// Fails if too many network namespaces are gone, or if the check would remove too many attachments in total. The caller must then remove
/// nothing.
pub(super) fn decide(
    netns_gone: DeletionDecision<AttachmentId>,
    pods_gone: Vec<AttachmentId>,
    population: usize,
) -> Result<HashMap<AttachmentId, RemovalReason>, Breaker> {
    if let Some(breaker) = netns_gone.tripped {
        return Err(breaker);
    }
    let mut removable: HashMap<AttachmentId, RemovalReason> =
        pods_gone.into_iter().map(|identity| (identity, RemovalReason::PodGone)).collect();
    removable.extend(netns_gone.to_delete.into_iter().map(|identity| (identity, RemovalReason::NetnsGone)));
    match Breaker::of(removable.len(), population) {
        Some(breaker) => Err(breaker),
        None => Ok(removable),
    }
}

/// The message about a tripped breaker. It says why the agent removed nothing, and which commands the reader should run next.
pub(super) fn trip_sentence(node: &str, Breaker { would_delete, population }: Breaker) -> String {
    format!(
        "{would_delete} of {population} pod interfaces (attachments) on node {node} look stale: their network namespaces or pods are gone, but the runtime has not called DEL. The agent does not remove so many by itself, so it removed none. To find the containers that are gone, compare `crictl pods` on the node with `kubectl get ipassignments --field-selector spec.nodeName={node} -o custom-columns=ID:.spec.containerID,POD:.spec.podName`. Then, {MANUAL_DEL}"
    )
}

/// The message about an interface that was moved out of its network namespace.
pub(super) fn moved_sentence(attachment: &Attachment) -> String {
    let link = attachment.links.as_ref().map_or_else(String::new, |links| format!(" (host link {})", links.host_if));
    let who = attachment.who();
    format!(
        "the network namespace of {who} ({}) is gone, but the interface{link} was moved to another network namespace. The address stays in use. When nothing uses the interface any more, delete the pod to free the address",
        attachment.pair
    )
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::AttachmentKey;
    use jiff::Timestamp;

    use super::*;

    fn identities(range: std::ops::Range<usize>) -> Vec<AttachmentId> {
        range.map(|id| (AttachmentKey::new(format!("c{id}"), "eth0"), Timestamp::UNIX_EPOCH)).collect()
    }

    fn netns(range: std::ops::Range<usize>) -> DeletionDecision<AttachmentId> {
        DeletionDecision { to_delete: identities(range), tripped: None }
    }

    #[test]
    fn an_attachment_is_removed_for_either_reason() {
        let free = decide(netns(0..2), identities(1..4), 100).unwrap();
        assert_eq!(free.len(), 4);
        assert_eq!(free[&identities(0..1)[0]], RemovalReason::NetnsGone);
        assert_eq!(free[&identities(3..4)[0]], RemovalReason::PodGone);
    }

    #[test]
    fn the_breaker_counts_both_reasons_together_and_each_attachment_once() {
        assert!(decide(netns(0..3), identities(0..4), 10).is_ok());
        let breaker = decide(netns(0..3), identities(3..5), 10).unwrap_err();
        assert_eq!(breaker, Breaker { would_delete: 5, population: 10 });
    }

    #[test]
    fn a_breaker_for_one_reason_stops_the_other_one_too() {
        let tripped = Breaker { would_delete: 9, population: 10 };
        let stopped = DeletionDecision { to_delete: Vec::new(), tripped: Some(tripped) };
        assert_eq!(decide(stopped, identities(0..1), 10), Err(tripped));
    }

    #[test]
    fn the_message_of_a_stopped_check_names_the_node_the_numbers_and_the_next_command() {
        let sentence = trip_sentence("n1", Breaker { would_delete: 9, population: 10 });
        for part in ["9 of 10", "node n1", "crictl pods", "CNI_COMMAND=DEL"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
