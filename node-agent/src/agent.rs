//! Holds the parts of the agent that the CNI verbs and the background tasks share. Also updates and ends attachments.

mod duplicate;

use std::sync::Arc;
use std::time::Duration;

use bobbin_datapath::{KernelError, Network, Wiring, boot_time};
use bobbin_ipam::{AttachmentKey, IpPair};
use bobbin_observability::Watchdog;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::assignments::AssignmentWriter;
use crate::cluster::freshness::FreshnessTracker;
use crate::cluster::{ClusterCache, cooldown_of};
use crate::cni::attachment_lock::AttachmentLocks;
use crate::events::Events;
use crate::host::run_dir::RunDir;
use crate::metrics::Metrics;
use crate::recent_activity::RecentActivity;
use crate::state::checkpoint::Checkpoint;
use crate::state::{Attachment, AttachmentPhase, NodeState};

pub use duplicate::DuplicateOutcome;

/// The shared parts of one node's agent.
pub struct Agent {
    /// The command-line settings.
    pub args: Args,
    /// Identifies the node's current boot.
    pub boot_id: String,
    /// The run directory, whose lock this agent holds.
    pub run_dir: Arc<RunDir>,
    /// Tells the liveness probe whether each of the agent's loops makes progress.
    pub watchdog: Watchdog,
    /// A token that is cancelled when the agent shuts down.
    pub stop: CancellationToken,
    /// This node's blocks, addresses and attachments.
    pub node_state: Arc<NodeState>,
    /// The files from which the agent restores its state after a restart.
    pub checkpoint: Checkpoint,
    /// Locks that allow one CNI verb at a time for each attachment.
    pub locks: AttachmentLocks,
    /// The node's kernel network.
    pub network: Network,
    /// The cluster's objects, as the agent's watches last reported them.
    pub cluster: ClusterCache,
    /// Tracks which blocks are proven to belong to this node, and when the API server was unreachable.
    pub freshness: Arc<FreshnessTracker>,
    /// Creates and deletes IPAssignments.
    pub assignment_writer: AssignmentWriter,
    /// Publishes events on pods, pools and the node.
    pub events: Events,
    /// The agent's metrics: counters and latencies.
    pub metrics: Metrics,
    /// What the agent did lately, for the status document.
    pub recent: Arc<RecentActivity>,
}

/// The error of [`Agent::end`]: the agent could not remove the attachment's address from the kernel. So the address stays in use, and the
/// stale-attachment check tries the removal again.
#[derive(Debug, thiserror::Error)]
#[error(
    "address {pair} of {key} stays in use, because the agent could not remove the address from the kernel: {source}"
)]
pub struct EndError {
    /// The attachment that could not be ended.
    pub key: AttachmentKey,
    /// The attachment's address.
    pub pair: IpPair,
    /// The kernel's error.
    pub source: KernelError,
}

impl Agent {
    /// Returns the wiring that an attachment should have.
    pub fn wiring(&self, key: &AttachmentKey, pair: IpPair) -> Wiring {
        let node = self.cluster.node();
        Wiring {
            key: key.clone(),
            pair,
            node_ipv4: node.as_ref().and_then(|node| node.ipv4).filter(|_| pair.ipv4.is_some()),
            node_ipv6: node.as_ref().and_then(|node| node.ipv6).filter(|_| pair.ipv6.is_some()),
        }
    }

    /// Changes an attachment in the node's state and in the checkpoint. Returns `None` if the node's state no longer has the attachment.
    pub fn update(&self, key: &AttachmentKey, change: impl FnOnce(&mut Attachment)) -> Option<Attachment> {
        let attachment = self.node_state.update(key, change)?;
        if let Err(error) = self.checkpoint.keep(&attachment) {
            tracing::error!(%key, %error, "the agent could not write the checkpoint of an attachment; after a restart the agent can still restore the attachment from the attachment's host link");
        }
        Some(attachment)
    }

    /// Ends an attachment: removes its wiring, queues the deletion of its IPAssignment, removes its checkpoint, and then frees the address.
    /// If the agent crashes before the last step, the address stays in use until a DEL or the stale-attachment check ends the attachment.
    /// If the agent can't remove the checkpoint, this function returns `false` and the address stays in use.
    pub async fn end(&self, attachment: &Attachment) -> Result<bool, EndError> {
        let (key, pair) = (&attachment.key, attachment.pair);
        self.node_state.update(key, |attachment| attachment.phase = AttachmentPhase::Deleting);
        self.network.detach(key, pair).await.map_err(|source| EndError { key: key.clone(), pair, source })?;
        let uid = self.node_state.attachment(key).and_then(|attachment| attachment.assignment_uid);
        // `delete_pair` saves the pending deletion of the IPAssignment on disk before it returns. So DEL need not wait for the API server.
        drop(self.assignment_writer.delete_pair(pair, key, uid));
        let now = boot_time();
        if let Err(error) = self.checkpoint.forget(key, pair, now) {
            // No other pod may get the address while the attachment's file exists. Otherwise a restarted agent would restore two
            // attachments with one address.
            tracing::error!(%key, %error, "the agent could not remove the checkpoint of an ended attachment, so the attachment's address stays in use; the stale-attachment check tries again");
            return Ok(false);
        }
        self.node_state.release(key, now);
        Ok(true)
    }

    /// How long a freed address of a pool cools down.
    pub fn cooldown(&self, pool: &str) -> Duration {
        cooldown_of(self.cluster.pool(pool).as_deref())
    }
}
