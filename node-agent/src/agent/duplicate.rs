//! Handles duplicate addresses: addresses that this node allocated although their IPAssignment names another attachment.

use bobbin_ipam::IpPair;
use bobbin_messages::event::agent as event;

use super::Agent;
use crate::assignments::assignment_name;
use crate::cluster::freshness::Invalidation;
use crate::state::{Attachment, ConflictingAssignment, exclusion};

/// The outcome for an attachment if the IPAssignment of its address names another attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateOutcome {
    /// The agent has not answered the attachment's ADD yet, so the pod gets another address.
    NotUsed,
    /// The other attachment's node owns the block, so the agent ended this node's attachment.
    Ended,
    /// The other attachment's node does not own the block. So the other attachment's IPAssignment is void, and this node's attachment keeps
    /// the address.
    Void,
    /// Both attachments with this address run on this node, and both keep it.
    SameNode,
}

impl Agent {
    /// Excludes an address from allocation, because the address's IPAssignment names another attachment. Returns true if the conflict is
    /// new.
    ///
    /// A new conflict also invalidates the proofs of all blocks. The resync then lists the assignments of the address's block.
    pub fn found_duplicate(&self, pair: IpPair, by: &str) -> bool {
        let Some(name) = assignment_name(pair) else { return false };
        let conflict = ConflictingAssignment { pair, name, by: by.to_owned() };
        let is_new = exclusion::exclude(&self.node_state, &self.checkpoint, conflict);
        if is_new {
            self.metrics.duplicate_addresses.inc();
            // Let the resync list the block's assignments, because one LIST request finds all conflicts of the block. Without the list, the
            // agent would find each conflict only when the API server refuses to create an ADD's IPAssignment.
            self.node_state.forget_assignments_listed(pair);
            self.freshness.invalidate(Invalidation::Duplicate);
        }
        is_new
    }

    /// Reports a duplicate address in the log and as an event on the Node. If the pod lost its network, the pod also gets an event.
    pub fn report_duplicate(&self, attachment: &Attachment, by: &str, outcome: DuplicateOutcome) {
        let sentence = sentence(attachment, by, outcome);
        tracing::error!(pair = %attachment.pair, key = %attachment.key, by, "duplicate address: {sentence}");
        self.events.on_node(&event::DUPLICATE_ADDRESS, &sentence);
        if outcome == DuplicateOutcome::Ended {
            self.events.on_pod(&attachment.pod, &event::DUPLICATE_ADDRESS, &sentence);
        }
    }
}

fn sentence(attachment: &Attachment, by: &str, outcome: DuplicateOutcome) -> String {
    let Attachment { pair, block, .. } = attachment;
    let name = assignment_name(*pair).unwrap_or_default();
    let who = attachment.who();
    let check = format!("To see the IPAssignment, run: kubectl get ipassignment {name} -o yaml");
    match outcome {
        DuplicateOutcome::NotUsed => format!(
            "IPAssignment {name} assigns address {pair} to {by}, so {who} gets another address. The node of {who} does not allocate {pair} while the IPAssignment exists. {check}"
        ),
        DuplicateOutcome::Ended => format!(
            "{who} has address {pair}, but IPAssignment {name} assigns address {pair} to {by}. The IPAssignment is valid, because the IPAssignment's node owns block {block}. The agent therefore removed the network of {who}. Delete {who}, so that its replacement gets another address"
        ),
        DuplicateOutcome::Void => format!(
            "{who} has address {pair}, but IPAssignment {name} assigns address {pair} to {by}. The IPAssignment is void, because the IPAssignment's node does not own block {block}. {who} keeps the address. If the IPAssignment names another pod, the operator deletes the IPAssignment when that pod is gone. {check}"
        ),
        DuplicateOutcome::SameNode => format!(
            "{who} and {by} run on the same node with the same address {pair}. Delete one of the two, so that its replacement gets another address"
        ),
    }
}
