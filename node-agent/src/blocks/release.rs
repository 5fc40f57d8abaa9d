//! A block on its way back to the pool: our records deleted and confirmed, then the route withdrawn, then a pause for the routers, then
//! one conditional write. An ADD may take it back until that write is sent; an unknown answer is read. Retried until done.

use std::net::IpAddr;
use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_ipam::BlockRange;
use futures::future::join_all;
use tokio::time::timeout;

use super::read::Owner;
use super::{Inner, Step};
use crate::assignments::{RecordRead, address_of, own_records_of, record_name};
use crate::state::{Attachment, BlockEvent, BlockState, ReleaseStage};

/// How long the deletions of a block's records are waited for before the block's records are listed again.
const DELETION_DEADLINE: Duration = Duration::from_secs(10);
/// How often a release checks whether a record that may be in use is gone.
const RECORD_IN_USE_PAUSE: Duration = Duration::from_mins(1);
/// How often a record that is being written is looked at.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

impl Inner {
    /// One step of a block in `releasing`.
    pub(super) async fn release(&self, name: &str, stage: ReleaseStage) -> Step {
        match stage {
            ReleaseStage::DeletingAssignments => self.delete_records(name).await,
            ReleaseStage::WithdrawingRoute => self.withdraw_and_send(name).await,
            ReleaseStage::Sent => self.read_release(name).await,
        }
    }

    /// Deletes this node's records in the block. Records of other nodes don't hold it up.
    async fn delete_records(&self, name: &str) -> Step {
        let Some(block) = self.with.node_state.block(name) else { return Step::Again };
        if self.writes_in(&block.held.range) {
            return Step::Wait(BUSY_PAUSE);
        }
        let left = match own_records_of(&self.with.clients, name, self.with.view.node_name()).await {
            Ok(left) => left,
            Err(error) => {
                tracing::debug!(block = name, %error, "the records of a block that is released can't be listed yet");
                return Step::Failed;
            }
        };
        if left.is_empty() {
            self.with.node_state.on(name, BlockEvent::AssignmentsDeleted);
            return Step::Again;
        }
        if left.iter().any(|record| !record.readable) {
            tracing::warn!(
                block = name,
                "a record in a block that is to be released can't be read; the block stays until it can"
            );
            return Step::Failed;
        }
        // No attachment has this record of this boot: its pod may live. The resync deletes it once that pod is gone.
        let in_use = |record: &&RecordRead| {
            // An attachment whose checkpoint can't be read has no address, and any of its records may be the one that it uses.
            let elsewhere = |attachment: Attachment| record_name(attachment.pair).is_some();
            record.boot_id == self.with.boot_id && !self.with.node_state.attachment(&record.key).is_some_and(elsewhere)
        };
        if let Some(record) = left.iter().find(in_use) {
            let sentence = format!(
                "block {name} is not given back: its address {0} is recorded for {1}, and no attachment on node {2} has it, so that pod may use it; the record is deleted once the pod is gone; if it is, delete the record: kubectl delete ipassignment {0}",
                record.name,
                record.by(),
                self.with.view.node_name()
            );
            tracing::warn!("{sentence}");
            self.with.events.node_warning("RecordsWithoutAttachment", &sentence);
            return Step::Wait(RECORD_IN_USE_PAUSE);
        }
        let deletions = left
            .into_iter()
            .map(|record| self.with.assignment_writer.delete(&record.name, &record.key, Some(record.uid)));
        match timeout(DELETION_DEADLINE, join_all(deletions)).await {
            Ok(_) => Step::Again,
            Err(_) => Step::Failed,
        }
    }

    /// Whether a record in the range is being written or waits to be.
    fn writes_in(&self, range: &BlockRange) -> bool {
        let inside = |name: &String| address_of(name).is_some_and(|address: IpAddr| range.offset_of(address).is_some());
        self.with.assignment_writer.busy_names().iter().any(inside)
    }

    async fn withdraw_and_send(&self, name: &str) -> Step {
        let Some(block) = self.with.node_state.block(name) else { return Step::Again };
        // A restart must not find a block in the checkpoint as serving that may be another node's by then.
        if let Err(error) = self.with.checkpoint.flush().await {
            tracing::debug!(block = name, %error, "a release waits for the checkpoint");
            return Step::Failed;
        }
        if let Err(error) = self.with.exports.withdraw(block.held.range).await {
            tracing::warn!(block = name, %error, "a block is not given back yet: its route could not be withdrawn");
            return Step::Failed;
        }
        if self.left_within(name, self.with.times.fabric_settle()).await {
            return Step::Again;
        }
        if !self.with.node_state.on(name, BlockEvent::ReleaseSent) {
            return Step::Again;
        }
        if self.with.checkpoint.flush().await.is_err() {
            self.with.node_state.on(name, BlockEvent::ReleaseFailed);
            return Step::Failed;
        }
        self.send(name).await.unwrap_or_else(|| {
            self.with.node_state.on(name, BlockEvent::ReleaseFailed);
            Step::Failed
        })
    }

    /// Sends the write; `None`: it was refused. The resourceVersion may have grown while the routers forgot the block.
    async fn send(&self, name: &str) -> Option<Step> {
        let Some(block) = self.with.node_state.block(name) else { return Some(Step::Again) };
        match self.api.release(&block, block.was_used).await {
            Outcome::Done(()) | Outcome::Refused(Refusal::NotFound) => Some(self.released(name)),
            Outcome::Refused(Refusal::Conflict) => Some(Step::Again),
            Outcome::Refused(refusal) => {
                tracing::error!(block = name, %refusal, "a block can't be given back; it is tried again");
                None
            }
            Outcome::Unknown(why) => {
                tracing::debug!(block = name, %why, "the outcome of a release is unknown; the block is read");
                Some(Step::Failed)
            }
        }
    }

    /// Waits for `pause`. Returns whether the block is not withdrawing its route any more.
    async fn left_within(&self, name: &str, pause: Duration) -> bool {
        let mut changed = self.with.node_state.changed();
        let left = async {
            let withdraws =
                |state| matches!(state, BlockState::Releasing { stage: ReleaseStage::WithdrawingRoute, .. });
            while self.with.node_state.block_state(name).is_some_and(withdraws) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(pause, left).await.is_ok()
    }

    /// What became of a write that was sent. If the block is still ours the write may yet arrive, so no ADD may take the block back: it is
    /// sent again, also when that is refused.
    async fn read_release(&self, name: &str) -> Step {
        let Some(node) = self.with.view.node() else { return Step::Failed };
        match self.api.get(name).await {
            Err(ReadError::NotFound) => self.released(name),
            Ok(read) if matches!(read.owner(&node), Owner::Nobody | Owner::Others) => self.released(name),
            Ok(read) if read.owner(&node) == Owner::Unknown => Step::Failed,
            // Ours, also in the name of an earlier Node: nobody else would give it back.
            Ok(read) => {
                self.with.node_state.refresh(name, &read.uid, &read.resource_version, read.deleting);
                self.send(name).await.unwrap_or(Step::Failed)
            }
            Err(error) => {
                tracing::debug!(block = name, %error, "a block that is released can't be read yet");
                Step::Failed
            }
        }
    }

    fn released(&self, name: &str) -> Step {
        if self.with.node_state.on(name, BlockEvent::Released) {
            tracing::info!(block = name, "gave a block back");
        }
        Step::Again
    }
}
