//! An address of this node with an IPAssignment of another attachment: excluded from allocation, counted and reported.

use bobbin_ipam::IpPair;

use super::Agent;
use crate::assignments::assignment_name;
use crate::cluster::freshness::Invalidation;
use crate::state::{Attachment, ConflictingAssignment, exclusion};

/// What happens to an attachment whose address has an IPAssignment of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateOutcome {
    /// Its ADD was not answered yet: the pod gets another address.
    NotUsed,
    /// The other node owns the block: the attachment ended.
    Ended,
    /// The other assignment is void, because its node does not own the block.
    Void,
    /// Both attachments run on this node: both keep the address.
    SameNode,
}

impl Agent {
    /// Another attachment has the IPAssignment of an address that this node allocated. Excludes the address, and marks all blocks
    /// unproven until they are read again. True: the conflict is new.
    pub fn found_duplicate(&self, pair: IpPair, by: &str) -> bool {
        let Some(name) = assignment_name(pair) else { return false };
        let conflict = ConflictingAssignment { pair, name, by: by.to_owned() };
        let is_new = exclusion::exclude(&self.node_state, &self.checkpoint, conflict);
        if is_new {
            self.metrics.duplicate_addresses.inc();
            self.freshness.invalidate(Invalidation::Duplicate);
        }
        is_new
    }

    /// Reports a duplicate in the log and as events.
    pub fn report_duplicate(&self, attachment: &Attachment, by: &str, outcome: DuplicateOutcome) {
        let sentence = sentence(attachment, by, outcome);
        tracing::error!(pair = %attachment.pair, key = %attachment.key, by, "duplicate address: {sentence}");
        self.events.node_warning("DuplicateAddress", &sentence);
        if outcome == DuplicateOutcome::Ended {
            self.events.pod_warning(&attachment.pod, "DuplicateAddress", &sentence);
        }
    }
}

fn sentence(attachment: &Attachment, by: &str, outcome: DuplicateOutcome) -> String {
    let Attachment { pair, block, .. } = attachment;
    let name = assignment_name(*pair).unwrap_or_default();
    let who = attachment.who();
    let check = format!("check it: kubectl get ipassignment {name} -o yaml");
    match outcome {
        DuplicateOutcome::NotUsed => format!(
            "IPAssignment {name} gives address {pair} to {by}, so {who} gets another address; this node does not allocate {pair} while the IPAssignment exists; {check}"
        ),
        DuplicateOutcome::Ended => format!(
            "IPAssignment {name} gives address {pair} of {who} to {by}, whose node owns block {block}. The pod has lost its network: delete the pod, so that it gets another address"
        ),
        DuplicateOutcome::Void => format!(
            "IPAssignment {name} gives address {pair} of {who} to {by}, whose node does not own block {block}. The pod keeps the address; the operator deletes the void IPAssignment once its pod is gone; {check}"
        ),
        DuplicateOutcome::SameNode => format!(
            "{who} and {by} run on this node with the same address {pair}: delete one of them, so that it gets another address"
        ),
    }
}
