//! Wires a pod while the API server creates the pod's IPAssignment. Decides whether the ADD may answer. Undoes the ADD's steps after an
//! error.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{CniError, code};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::AddContext;
use super::wiring::{links_of, wire};
use crate::agent::Agent;
use crate::assignments::Confirmation;
use crate::cluster::freshness::Proof;
use crate::cni::attachment_lock::AttachmentLock;
use crate::cni::call_record::{Stage, stage};
use crate::cni::interrupted_by_del;
use crate::state::{Attachment, AttachmentPhase, FencingToken, Links};

/// How long an ADD waits for its confirmation if other nodes may have assignments in the block of the address.
const MAX_UNSEEN_WAIT: Duration = Duration::from_secs(5);

/// Whether an ADD may answer with the address that it allocated.
pub(super) enum Confirmed {
    /// The pod is wired, and the ADD may answer.
    Wired(Links),
    /// The address already has an IPAssignment for another attachment. The ADD has undone the allocation and the wiring.
    Conflict { by: String, node: String },
    /// The node may have lost the block. The ADD has undone the allocation and the wiring.
    BlockDoubted,
    /// Another node may use the address, and the API server has not confirmed the IPAssignment. The ADD has undone the allocation and the
    /// wiring.
    Unconfirmed,
}

/// The settings for the confirmation of an ADD's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfirmOptions {
    /// The end of the wait for the API server's answer.
    pub until: Instant,
    /// Whether the ADD waits for the API server's answer before it wires the pod. True after a conflict, because the next
    /// address may also have an IPAssignment for another attachment.
    pub before_wiring: bool,
}

/// Wires the pod while the API server creates the pod's IPAssignment, then waits for the API server's answer.
pub(super) async fn confirm(
    agent: &Arc<Agent>,
    context: &AddContext,
    lock: &AttachmentLock,
    attachment: &Attachment,
    token: &FencingToken,
    netns: OwnedFd,
    options: ConfirmOptions,
) -> Result<Confirmed, CniError> {
    let key = &attachment.key;
    if let Err(error) = stage(Stage::Checkpoint, async { agent.checkpoint.keep(attachment) }).await {
        agent.node_state.release(key, bobbin_datapath::boot_time());
        return Err(CniError::new(
            code::IO_FAILURE,
            format!(
                "the agent could not write the checkpoint of attachment {key}: {error}. Make sure that the agent can write to {} on the node",
                agent.args.run_dir.display()
            ),
        ));
    }
    let until = options.until;
    let mut pending = Some(agent.assignment_writer.create(attachment));
    let mut uid = None;
    if options.before_wiring
        && let Some(confirmation) = pending.take()
    {
        match answer(agent, lock, attachment, confirmation, until).await? {
            Answer::Proceed { uid: created } => uid = created,
            Answer::Conflict(conflict) => return Ok(conflict),
        }
    }
    let attached = match stage(Stage::Wiring, Box::pin(wire(agent, &context.prepared, attachment, netns))).await {
        Ok(attached) => attached,
        Err(error) => {
            drop(pending);
            undo(agent, attachment).await;
            return Err(error);
        }
    };
    if let Some(confirmation) = pending {
        match answer(agent, lock, attachment, confirmation, until).await? {
            Answer::Proceed { uid: created } => uid = created,
            Answer::Conflict(conflict) => return Ok(conflict),
        }
    }
    // The agent has not listed this block's assignments yet, so without a confirmation the address may belong to another node's pod.
    if uid.is_none() && token.proof == Proof::AssignmentsUnseen {
        undo(agent, attachment).await;
        return Ok(Confirmed::Unconfirmed);
    }
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

/// The next step of an ADD after the API server's answer about its IPAssignment.
enum Answer {
    /// The ADD continues. `uid` is the IPAssignment's UID if the API server has confirmed the IPAssignment.
    Proceed { uid: Option<String> },
    /// The ADD needs another address. It has undone the allocation and the wiring.
    Conflict(Confirmed),
}

/// Waits for the API server's answer until `until`. Undoes the ADD if the answer forbids the address, or if a DEL ends the wait.
async fn answer(
    agent: &Agent,
    lock: &AttachmentLock,
    attachment: &Attachment,
    confirmation: oneshot::Receiver<Confirmation>,
    until: Instant,
) -> Result<Answer, CniError> {
    let key = &attachment.key;
    let wait = until.saturating_duration_since(Instant::now());
    let confirmation = async {
        tokio::select! {
            confirmation = agent.assignment_writer.confirmation(confirmation, attachment.pair, wait) => confirmation,
            () = agent.stop.cancelled() => None,
        }
    };
    let confirmation = stage(Stage::Assignment, lock.unless_del_waits(confirmation)).await;
    let Some(confirmation) = confirmation else {
        undo(agent, attachment).await;
        return Err(interrupted_by_del(key, "the API server's answer about its IPAssignment"));
    };
    match confirmation {
        Some(Confirmation::Created { uid }) => Ok(Answer::Proceed { uid: Some(uid) }),
        Some(Confirmation::Denied(_)) | None => Ok(Answer::Proceed { uid: None }),
        Some(Confirmation::Taken { by, node, .. }) => {
            undo(agent, attachment).await;
            Ok(Answer::Conflict(Confirmed::Conflict { by, node }))
        }
        Some(Confirmation::Refused(why)) => {
            undo(agent, attachment).await;
            Err(CniError::new(
                code::TRY_AGAIN_LATER,
                format!(
                    "the API server refused the IPAssignment of address {} for {key} on node {}: {why}. Check ClusterRole bobbin-agent, the admission policies and AddressBlock {}",
                    attachment.pair, agent.args.node_name, attachment.block
                ),
            ))
        }
    }
}

/// The time at which an ADD stops waiting for the confirmation of its IPAssignment. An ADD with an address of a proven block does not wait,
/// because no other node assigns addresses of such a block.
///
/// `waited` is the time that the ADD has already waited for the API server. `add_until` is the end of the ADD's time limit
/// (`--add-timeout`).
pub(super) fn confirm_until(
    agent: &Agent,
    context: &AddContext,
    token: &FencingToken,
    waited: Duration,
    add_until: Instant,
) -> Instant {
    let now = Instant::now();
    if agent.freshness.proves(token.proof, bobbin_datapath::boot_time()) {
        return now;
    }
    agent.metrics.unproven_adds.inc();
    // Wake the resync. The resync reads the block and may prove it, so that later ADDs need not wait.
    context.resync_trigger.notify_one();
    match token.proof {
        // This ADD can't succeed without the confirmation. Still, keep the wait short: the runtime repeats the ADD, and by then a LIST of
        // the assignments may have proven the block.
        Proof::AssignmentsUnseen => add_until.min(now + MAX_UNSEEN_WAIT),
        Proof::None | Proof::Confirmed(_) => now + agent.args.confirm_wait.saturating_sub(waited),
    }
}

/// Undoes an ADD. If a step of the undo fails, the address stays in use until the stale-attachment check ends the attachment.
async fn undo(agent: &Agent, attachment: &Attachment) {
    if let Err(error) = agent.end(attachment).await {
        tracing::error!(%error, "the agent could not undo a failed ADD; the stale-attachment check tries again");
    }
}
