//! Releases a block: deletes this node's assignments, withdraws the route, and gives the routers time to react. Then clears the block's
//! owner with one conditional write.
//!
//! Before the agent sends the write, an ADD may cancel the release. If the outcome of the write is unknown, the agent reads the block. The
//! agent repeats each step that fails.

use std::net::IpAddr;
use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_ipam::BlockRange;
use bobbin_messages::event::agent as event;
use futures::future::join_all;
use tokio::time::timeout;

use super::read::Owner;
use super::{ReconcilerState, Requeue};
use crate::assignments::{AssignmentInfo, address_of, assignment_name, list_own_assignments_in_block};
use crate::state::{Attachment, BlockEvent, BlockState, ReleaseStage};

/// How long a release waits for the deletion of assignments before the release lists the assignments again.
const DELETION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a release lists the assignments in the block again while a pod may still use one of them.
const IN_USE_RETRY_INTERVAL: Duration = Duration::from_mins(1);
/// How often a release checks whether pending writes of assignments are done.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl ReconcilerState {
    /// Makes one step for a block in the state `releasing`.
    pub(super) async fn release(&self, name: &str, stage: ReleaseStage) -> Requeue {
        match stage {
            ReleaseStage::DeletingAssignments => self.delete_assignments(name).await,
            ReleaseStage::WithdrawingRoute => self.withdraw_and_release(name).await,
            ReleaseStage::Sent => self.resolve_sent_release(name).await,
        }
    }

    /// Deletes this node's assignments in the block. Assignments of other nodes don't delay the release.
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
                tracing::debug!(block = name, %error, "the agent can't list the assignments in a block that it is releasing; the agent retries");
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
                "the agent can't decode an assignment in a block that it is releasing, so the node keeps the block for now. To see the assignments, run: kubectl get ipassignments --field-selector spec.blockName=<block> -o yaml"
            );
            return Requeue::WithBackoff;
        }
        // If an assignment was created in this boot, its pod may still be running, even if the node has no attachment for the pod. The
        // resync deletes the assignment once the pod is gone.
        let in_use = |assignment: &&AssignmentInfo| {
            // Whether the assignment's attachment has an address in another block. In the node's state, no attachment has an address of a
            // block that is being released. So an address of the attachment in the state is always in another block. An attachment with an
            // unreadable checkpoint has no address in the state, so it may use this assignment's address.
            let elsewhere = |attachment: Attachment| assignment_name(attachment.pair).is_some();
            assignment.boot_id == self.context.boot_id
                && !self.context.node_state.attachment(&assignment.key).is_some_and(elsewhere)
        };
        if let Some(assignment) = left.iter().find(in_use) {
            let sentence = format!(
                "block {name} is not released, because a pod may still use the address of IPAssignment {0}. The IPAssignment belongs to {1}, but the agent of node {2} knows no attachment with this address. The agent deletes the IPAssignment after it has proven that the owner is gone. If you know that the owner is gone, run: kubectl delete ipassignment {0}",
                assignment.name,
                assignment.by(),
                self.context.cluster.node_name()
            );
            tracing::warn!("{sentence}");
            self.context.events.on_node(&event::ORPHANED_ASSIGNMENT, &sentence);
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

    /// Whether a write is pending for an assignment whose address is in the range.
    fn writes_in(&self, range: &BlockRange) -> bool {
        let inside = |name: &String| address_of(name).is_some_and(|address: IpAddr| range.offset_of(address).is_some());
        self.context.assignment_writer.busy_names().iter().any(inside)
    }

    async fn withdraw_and_release(&self, name: &str) -> Requeue {
        let Some(block) = self.context.node_state.block(name) else { return Requeue::Now };
        // Save the block's state first, so that a restarted agent does not restore the block as in service after another node has claimed
        // the block.
        if let Err(error) = self.context.checkpoint.flush().await {
            tracing::debug!(block = name, %error, "the agent does not release a block yet, because it could not save the checkpoint");
            return Requeue::WithBackoff;
        }
        if let Err(error) = self.context.exports.withdraw(block.held.range).await {
            tracing::warn!(block = name, %error, "the agent does not release a block yet, because it could not withdraw the block's route");
            return Requeue::WithBackoff;
        }
        if self.cancelled_within(name, self.context.times.route_withdrawal_delay()).await {
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

    /// Sends the write that releases the block. Returns `None` if the API server refused the write for a reason other than a conflict. The
    /// write uses the newest resourceVersion in the node's state, because the block may have changed since the last step.
    async fn send_release(&self, name: &str) -> Option<Requeue> {
        let Some(block) = self.context.node_state.block(name) else { return Some(Requeue::Now) };
        match self.api.release(&block, block.was_used).await {
            Outcome::Done(()) | Outcome::Refused(Refusal::NotFound) => Some(self.released(name)),
            Outcome::Refused(Refusal::Conflict) => Some(Requeue::Now),
            Outcome::Refused(refusal) => {
                tracing::error!(block = name, %refusal, "the API server refused to release a block; the agent retries");
                None
            }
            Outcome::Unknown(why) => {
                tracing::debug!(block = name, %why, "the agent does not know whether its release of a block succeeded, so the agent reads the block");
                Some(Requeue::WithBackoff)
            }
        }
    }

    /// Waits for `pause`. Returns whether the release was cancelled meanwhile.
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

    /// Reads a block after the agent has sent the block's release. If this node still owns the block, the agent sends the release again,
    /// even after a refusal. No ADD may cancel such a release, because an earlier write may still take effect.
    async fn resolve_sent_release(&self, name: &str) -> Requeue {
        let Some(node) = self.context.cluster.node() else { return Requeue::WithBackoff };
        let Some(held) = self.context.node_state.block(name) else { return Requeue::Now };
        match self.api.get(name).await {
            Err(ReadError::NotFound) => self.released(name),
            Ok(read) => match read.owner_of(&held.held, &node) {
                Owner::Free | Owner::OtherNode => self.released(name),
                Owner::Unknown => Requeue::WithBackoff,
                // Send the write again, because no other node releases a block that names this node.
                Owner::ThisNode | Owner::EarlierNode => {
                    self.context.node_state.refresh(name, &read.uid, &read.resource_version, read.deleting);
                    self.send_release(name).await.unwrap_or(Requeue::WithBackoff)
                }
            },
            Err(error) => {
                tracing::debug!(block = name, %error, "the agent sent the release of a block, but could not read the block afterwards. The outcome is unknown, and the agent reads the block again");
                Requeue::WithBackoff
            }
        }
    }

    fn released(&self, name: &str) -> Requeue {
        if self.context.node_state.on(name, BlockEvent::Released) {
            tracing::info!(block = name, "the node released a block");
        }
        Requeue::Now
    }
}
