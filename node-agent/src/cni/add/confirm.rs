//! Wires a pod while the API server creates its IPAssignment, and decides whether the ADD may answer. After an error it undoes the ADD's
//! steps.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{CniError, code};
use tokio::time::Instant;

use super::AddContext;
use super::wiring::{links_of, wire};
use crate::agent::Agent;
use crate::assignments::Confirmation;
use crate::cluster::freshness::Proof;
use crate::cni::attachment_lock::AttachmentLock;
use crate::cni::interrupted_by_del;
use crate::state::{Attachment, AttachmentPhase, FencingToken, Links};

/// Whether an ADD may answer with the address that it allocated.
pub(super) enum Confirmed {
    /// The pod is wired, and the ADD may answer.
    Wired(Links),
    /// The IPAssignment of the address names another attachment. The ADD has undone the allocation and the wiring.
    Conflict { by: String, node: String },
    /// The node may have lost the block. The ADD has undone the allocation and the wiring.
    BlockDoubted,
    /// Another node may use the address, and the API server has not confirmed the IPAssignment. The allocation and the wiring were undone.
    Unconfirmed,
}

/// Wires the pod and creates its IPAssignment at the same time, then waits up to `wait` for the API server's answer.
pub(super) async fn confirm(
    agent: &Arc<Agent>,
    context: &AddContext,
    lock: &AttachmentLock,
    attachment: &Attachment,
    token: &FencingToken,
    netns: OwnedFd,
    wait: Duration,
) -> Result<Confirmed, CniError> {
    let key = &attachment.key;
    if let Err(error) = agent.checkpoint.keep(attachment) {
        agent.node_state.release(key, bobbin_datapath::boot_time());
        return Err(CniError::new(
            code::IO_FAILURE,
            format!(
                "the agent could not write the checkpoint of attachment {key}: {error}; make sure that the agent can write to {} on the node",
                agent.args.run_dir.display()
            ),
        ));
    }
    let until = Instant::now() + wait;
    let confirmation = agent.assignment_writer.create(attachment);
    let attached = match wire(agent, &context.prepared, attachment, netns).await {
        Ok(attached) => attached,
        Err(error) => {
            drop(confirmation);
            undo(agent, attachment).await;
            return Err(error);
        }
    };
    let waiting_since = std::time::Instant::now();
    let wait = until.saturating_duration_since(Instant::now());
    let confirmation =
        lock.unless_del_waits(agent.assignment_writer.confirmation(confirmation, attachment.pair, wait)).await;
    agent.metrics.observe_confirmation_wait(waiting_since.elapsed());
    let Some(confirmation) = confirmation else {
        undo(agent, attachment).await;
        return Err(interrupted_by_del(key, "the API server's answer about its IPAssignment"));
    };
    let uid = match confirmation {
        Some(Confirmation::Created { uid }) => Some(uid),
        Some(Confirmation::Taken { by, node, .. }) => {
            undo(agent, attachment).await;
            return Ok(Confirmed::Conflict { by, node });
        }
        Some(Confirmation::Refused(why)) => {
            undo(agent, attachment).await;
            return Err(CniError::new(
                code::TRY_AGAIN_LATER,
                format!(
                    "the API server refused the IPAssignment of address {} for {key} on node {}: {why}; check ClusterRole bobbin-agent, the admission policies and AddressBlock {}",
                    attachment.pair, agent.args.node_name, attachment.block
                ),
            ));
        }
        // The assignments of other nodes in this block were not listed yet, so only the confirmation shows that the address is free.
        None if token.proof == Proof::AssignmentsUnseen => {
            undo(agent, attachment).await;
            return Ok(Confirmed::Unconfirmed);
        }
        None => None,
    };
    if !agent.node_state.token_is_current(token) {
        undo(agent, attachment).await;
        return Ok(Confirmed::BlockDoubted);
    }
    let links = links_of(&attached);
    agent.update(key, |attachment| {
        attachment.phase = AttachmentPhase::Live;
        attachment.links = Some(links.clone());
        if uid.is_some() {
            attachment.assignment_uid = uid;
        }
    });
    Ok(Confirmed::Wired(links))
}

/// How long an ADD waits until the API server confirms its IPAssignment. An ADD from a proven block does not wait: the API server recently
/// confirmed that this node owns the block. So no other node may assign the block's addresses.
pub(super) fn confirm_wait(agent: &Agent, context: &AddContext, token: &FencingToken) -> Duration {
    if agent.freshness.proves(token.proof, bobbin_datapath::boot_time()) {
        return Duration::ZERO;
    }
    agent.metrics.unproven_adds.inc();
    // Wake the resync, which reads the block, so that later ADDs need not wait.
    context.resync_trigger.notify_one();
    agent.args.confirm_wait
}

/// Undoes an ADD. If the undo fails, the address stays in use until the stale-attachment check ends the attachment.
async fn undo(agent: &Agent, attachment: &Attachment) {
    if let Err(error) = agent.end(attachment).await {
        tracing::error!(%error, "the agent could not undo a failed ADD; the stale-attachment check tries again");
    }
}
