//! Addresses with a record that no attachment here has: kept over a restart, and handed out again when that record is gone.

use bobbin_api_client::ReadError;
use bobbin_ipam::{BlockRange, IpPair};

use super::Resync;
use crate::assignments::{AssignmentInfo, assignment_name, get_assignment, pair_of};
use crate::state::{Attachment, ConflictingAssignment};

impl Resync {
    /// [`Self::pass_over`] in the block that has the record's address, if that is this node's.
    pub(super) fn pass_over_in_own_block(&self, record: &AssignmentInfo) {
        let ranges = self.own_ranges();
        if let Some(range) = ranges.values().find(|range| pair_of(range, &record.name).is_some()) {
            self.pass_over(range, record);
        }
    }

    /// Does not hand the record's address out while the record is there. A record outside the range passes nothing over.
    pub(super) fn pass_over(&self, range: &BlockRange, record: &AssignmentInfo) {
        let Some(pair) = pair_of(range, &record.name) else { return };
        let record = ConflictingAssignment { pair, name: record.name.clone(), by: record.by() };
        if let Err(error) = self.checkpoint.keep_passed_over(&record) {
            tracing::error!(%error, "an address that is passed over could not be written down");
        }
        let sentence = format!(
            "address {pair} of this node's block is recorded for {}: node {} does not hand it out while that record exists; see it: kubectl get ipassignment {} -o yaml",
            record.by,
            self.cluster.node_name(),
            record.name
        );
        if self.node_state.pass_over(record) {
            tracing::warn!("{sentence}");
            self.events.node_warning("AddressPassedOver", &sentence);
        }
    }

    /// Reads the record of every address that is passed over.
    pub(super) async fn recheck_passed_over(&self) {
        for passed in self.node_state.passed_over() {
            match get_assignment(&self.clients, &passed.name).await {
                Err(ReadError::NotFound) => self.end_pass_over(&passed),
                Ok(record) if self.is_held(&record) && !self.has_two_holders(passed.pair) => {
                    self.end_pass_over(&passed);
                }
                // Whose block it is may have changed: the answer to another try to record the attachment here tells.
                Ok(_) => self.record_again(passed.pair),
                Err(error) => {
                    tracing::debug!(record = passed.name, %error, "a record can't be read; its address stays passed over");
                }
            }
        }
    }

    /// Whether an attachment of this node has the record's address, or the record is about to be deleted.
    pub(super) fn is_held(&self, record: &AssignmentInfo) -> bool {
        let held = |attachment: &Attachment| assignment_name(attachment.pair).as_deref() == Some(&record.name);
        record.node_name == self.cluster.node_name()
            && (self.node_state.attachment(&record.key).as_ref().is_some_and(held)
                || self.assignment_writer.busy(&record.name))
    }

    /// Whether two attachments here have the same address, which only an earlier fault leaves behind: that was told once.
    fn has_two_holders(&self, pair: IpPair) -> bool {
        self.node_state.attachments().iter().filter(|attachment| attachment.pair == pair).count() > 1
    }

    fn record_again(&self, pair: IpPair) {
        let living = self.node_state.attachments().into_iter().find(|attachment| attachment.pair == pair);
        if let Some(attachment) = living.filter(Attachment::needs_record)
            && !self.assignment_writer.busy_with(pair)
        {
            self.assignment_writer.recreate(&attachment);
        }
    }

    fn end_pass_over(&self, passed: &ConflictingAssignment) {
        if let Err(error) = self.checkpoint.forget_passed_over(passed) {
            tracing::error!(%error, "an address that is free again is still written down as passed over");
        }
        self.record_again(passed.pair);
        if self.node_state.end_pass_over(passed.pair) {
            tracing::info!(address = %passed.pair, "the record of another attachment is gone: the address can be handed out again");
        }
    }
}
