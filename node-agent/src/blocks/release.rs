//! A block on its way back to the pool: our records deleted and confirmed, then the route withdrawn, then a pause for the routers, then
//! one conditional write. An ADD may take it back until that write is sent; an unknown answer is read. Retried until done.

use std::net::IpAddr;
use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_ipam::BlockRange;
use futures::future::join_all;
use tokio::time::timeout;

use super::read::Owner;
use super::{ReconcilerState, Requeue};
use crate::assignments::{AssignmentInfo, address_of, assignment_name, list_own_assignments_in_block};
use crate::state::{Attachment, BlockEvent, BlockState, ReleaseStage};

/// How long the deletions of a block's records are waited for before the block's records are listed again.
const DELETION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a release checks whether a record that may be in use is gone.
const IN_USE_RETRY_INTERVAL: Duration = Duration::from_mins(1);
/// How often a record that is being written is looked at.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl ReconcilerState {
    /// One step of a block in `releasing`.
    pub(super) async fn release(&self, name: &str, stage: ReleaseStage) -> Requeue {
        match stage {
            ReleaseStage::DeletingAssignments => self.delete_assignments(name).await,
            ReleaseStage::WithdrawingRoute => self.withdraw_and_release(name).await,
            ReleaseStage::Sent => self.resolve_sent_release(name).await,
        }
    }

    /// Deletes this node's records in the block. Records of other nodes don't hold it up.
    async fn delete_assignments(&self, name: &str) -> Requeue {
        let Some(block) = self.context.node_state.block(name) else { return Requeue::Now };
        if self.writes_in(&block.held.range) {
            return Requeue::After(BUSY_RETRY_INTERVAL);
        }
        let left = match list_own_assignments_in_block(&self.context.clients, name, self.context.cluster.node_name())
            .await
        {
            Ok(left) => left,
            Err(error) => {
                tracing::debug!(block = name, %error, "the records of a block that is released can't be listed yet");
                return Requeue::WithBackoff;
            }
        };
        if left.is_empty() {
            self.context.node_state.on(name, BlockEvent::AssignmentsDeleted);
            return Requeue::Now;
        }
        if left.iter().any(|assignment| !assignment.readable) {
            tracing::warn!(
                block = name,
                "a record in a block that is to be released can't be read; the block stays until it can"
            );
            return Requeue::WithBackoff;
        }
        // No attachment has this record of this boot: its pod may live. The resync deletes it once that pod is gone.
        let in_use = |assignment: &&AssignmentInfo| {
            // An attachment whose checkpoint can't be read has no address, and any of its records may be the one that it uses.
            let elsewhere = |attachment: Attachment| assignment_name(attachment.pair).is_some();
            assignment.boot_id == self.context.boot_id
                && !self.context.node_state.attachment(&assignment.key).is_some_and(elsewhere)
        };
        if let Some(assignment) = left.iter().find(in_use) {
            let sentence = format!(
                "block {name} is not given back: its address {0} is recorded for {1}, and no attachment on node {2} has it, so that pod may use it; the record is deleted once the pod is gone; if it is, delete the record: kubectl delete ipassignment {0}",
                assignment.name,
                assignment.by(),
                self.context.cluster.node_name()
            );
            tracing::warn!("{sentence}");
            self.context.events.node_warning("RecordsWithoutAttachment", &sentence);
            return Requeue::After(IN_USE_RETRY_INTERVAL);
        }
        let deletions = left.into_iter().map(|assignment| {
            self.context.assignment_writer.delete(&assignment.name, &assignment.key, Some(assignment.uid))
        });
        match timeout(DELETION_TIMEOUT, join_all(deletions)).await {
            Ok(_) => Requeue::Now,
            Err(_) => Requeue::WithBackoff,
        }
    }

    /// Whether a record in the range is being written or waits to be.
    fn writes_in(&self, range: &BlockRange) -> bool {
        let inside = |name: &String| address_of(name).is_some_and(|address: IpAddr| range.offset_of(address).is_some());
        self.context.assignment_writer.busy_names().iter().any(inside)
    }

    async fn withdraw_and_release(&self, name: &str) -> Requeue {
        let Some(block) = self.context.node_state.block(name) else { return Requeue::Now };
        // A restart must not find a block in the checkpoint as serving that may be another node's by then.
        if let Err(error) = self.context.checkpoint.flush().await {
            tracing::debug!(block = name, %error, "a release waits for the checkpoint");
            return Requeue::WithBackoff;
        }
        if let Err(error) = self.context.exports.withdraw(block.held.range).await {
            tracing::warn!(block = name, %error, "a block is not given back yet: its route could not be withdrawn");
            return Requeue::WithBackoff;
        }
        if self.cancelled_within(name, self.context.times.fabric_settle()).await {
            return Requeue::Now;
        }
        if !self.context.node_state.on(name, BlockEvent::ReleaseSent) {
            return Requeue::Now;
        }
        if self.context.checkpoint.flush().await.is_err() {
            self.context.node_state.on(name, BlockEvent::ReleaseFailed);
            return Requeue::WithBackoff;
        }
        self.send_release(name).await.unwrap_or_else(|| {
            self.context.node_state.on(name, BlockEvent::ReleaseFailed);
            Requeue::WithBackoff
        })
    }

    /// Sends the write; `None`: it was refused. The resourceVersion may have grown while the routers forgot the block.
    async fn send_release(&self, name: &str) -> Option<Requeue> {
        let Some(block) = self.context.node_state.block(name) else { return Some(Requeue::Now) };
        match self.api.release(&block, block.was_used).await {
            Outcome::Done(()) | Outcome::Refused(Refusal::NotFound) => Some(self.released(name)),
            Outcome::Refused(Refusal::Conflict) => Some(Requeue::Now),
            Outcome::Refused(refusal) => {
                tracing::error!(block = name, %refusal, "a block can't be given back; it is tried again");
                None
            }
            Outcome::Unknown(why) => {
                tracing::debug!(block = name, %why, "the outcome of a release is unknown; the block is read");
                Some(Requeue::WithBackoff)
            }
        }
    }

    /// Waits for `pause`. Returns whether the block is not withdrawing its route any more.
    async fn cancelled_within(&self, name: &str, pause: Duration) -> bool {
        let mut changed = self.context.node_state.changed();
        let left = async {
            let withdraws =
                |state| matches!(state, BlockState::Releasing { stage: ReleaseStage::WithdrawingRoute, .. });
            while self.context.node_state.block_state(name).is_some_and(withdraws) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(pause, left).await.is_ok()
    }

    /// What became of a write that was sent. If the block is still ours the write may yet arrive, so no ADD may take the block back: it is
    /// sent again, also when that is refused.
    async fn resolve_sent_release(&self, name: &str) -> Requeue {
        let Some(node) = self.context.cluster.node() else { return Requeue::WithBackoff };
        match self.api.get(name).await {
            Err(ReadError::NotFound) => self.released(name),
            Ok(read) if matches!(read.owner(&node), Owner::Free | Owner::OtherNode) => self.released(name),
            Ok(read) if read.owner(&node) == Owner::Unknown => Requeue::WithBackoff,
            // Ours, also in the name of an earlier Node: nobody else would give it back.
            Ok(read) => {
                self.context.node_state.refresh(name, &read.uid, &read.resource_version, read.deleting);
                self.send_release(name).await.unwrap_or(Requeue::WithBackoff)
            }
            Err(error) => {
                tracing::debug!(block = name, %error, "a block that is released can't be read yet");
                Requeue::WithBackoff
            }
        }
    }

    fn released(&self, name: &str) -> Requeue {
        if self.context.node_state.on(name, BlockEvent::Released) {
            tracing::info!(block = name, "gave a block back");
        }
        Requeue::Now
    }
}
