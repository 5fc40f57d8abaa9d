//! An address for an ADD: from the node's blocks, from a block that is claimed now, or, when the pool is full, the one that comes free
//! while the ADD is held.

use std::sync::Arc;

use bobbin_cni_wire::{CniError, code};
use bobbin_datapath::boot_time;
use bobbin_ipam::AttachmentKey;
use tokio::time::{Instant, timeout_at};

use super::super::{Failure, called_off};
use crate::agent::Agent;
use crate::blocks::claim::ClaimError;
use crate::blocks::demand::WaitingAdd;
use crate::blocks::demand::waiting_pods::Waiter;
use crate::cni::attachment_lock::AttachmentLock;
use crate::state::{AssignError, Attachment, PodRef, Request, Taken};

/// What an ADD wants an address for.
pub(super) struct Wanted<'a> {
    /// The attachment.
    pub key: &'a AttachmentKey,
    /// Its pod.
    pub pod: &'a PodRef,
    /// Whether the API server showed a pod of that UID.
    pub pod_seen: bool,
    /// The pool that was chosen.
    pub pool: &'a str,
    /// The path of the container's network namespace.
    pub netns: &'a str,
    /// The name of the CNI network.
    pub network: &'a str,
}

/// Takes an address, waiting for one until `until` at most.
///
/// # Errors
/// Code 11: the pool has none for this node, the attachment has one already, a DEL ended the wait, or the agent stops.
pub(super) async fn take(
    agent: &Arc<Agent>,
    lock: &AttachmentLock,
    wanted: &Wanted<'_>,
    until: Instant,
) -> Result<Taken, Failure> {
    let Wanted { key, pod, pool, .. } = *wanted;
    let waiter = Waiter::of(pod, key);
    let request = Request {
        key,
        pod,
        pod_seen: wanted.pod_seen,
        pool,
        cooldown: agent.cooldown(pool),
        boot_id: &agent.boot_id,
        netns: Some(wanted.netns),
        network: Some(wanted.network),
        at: jiff::Timestamp::now(),
    };
    let mut node_state = agent.node_state.changed();
    let mut view = agent.cluster.changed();
    let mut demand: Option<WaitingAdd> = None;
    // What stock says of its last claim counts from the first claim that this ADD has asked for: an earlier one is history.
    let mut answered = false;
    let mut told = false;
    loop {
        node_state.mark_unchanged();
        view.mark_unchanged();
        match agent.node_state.assign(&request, boot_time()) {
            Ok(taken) => {
                log_end(agent, &waiter, &taken.attachment);
                return Ok(taken);
            }
            Err(AssignError::AlreadyHeld(known)) => {
                return Err(CniError::new(
                    code::TRY_AGAIN_LATER,
                    format!("attachment {key} holds {} since another call; the runtime tries again", known.pair),
                )
                .into());
            }
            Err(AssignError::NoneCooled { .. } | AssignError::NoBlock) => {}
        }
        let demand = demand.get_or_insert_with(|| agent.demand.demand(pool));
        let trouble = agent.demand.last_claim_error(pool).filter(|_| answered);
        if trouble.as_deref().is_some_and(is_final) {
            // No block is to be had: an address that still cools goes out early, for a pod that starts beats one that doesn't.
            if let Ok(taken) = agent.node_state.assign_early(&request, boot_time()) {
                agent.metrics.early_reuses.inc();
                tracing::warn!(pair = %taken.attachment.pair, pool, "an address went out before its cool-down was over: the pool has no other for this node");
                log_end(agent, &waiter, &taken.attachment);
                return Ok(taken);
            }
            if !told {
                told = true;
                tell(agent, &waiter, pod, pool, &sentence(agent, pool, trouble.as_deref()));
            }
        }
        let woken = async {
            tokio::select! {
                _ = node_state.changed() => None,
                _ = view.changed() => None,
                () = demand.tried() => {
                    answered = true;
                    None
                }
                () = lock.called_off() => Some(called_off(key, &format!("an address of pool {pool:?}"))),
                () = agent.stop.cancelled() => Some(stopping(key, pool)),
            }
        };
        let woken = timeout_at(until, woken).await;
        if let Ok(Some(error)) = woken {
            tracing::info!("{error}");
            return Err(Failure::logged(error));
        }
        if woken.is_err() {
            let msg = sentence(agent, pool, agent.demand.last_claim_error(pool).as_deref());
            if !told {
                tell(agent, &waiter, pod, pool, &msg);
            }
            return Err(Failure::logged(CniError::new(code::TRY_AGAIN_LATER, msg)));
        }
    }
}

fn stopping(key: &AttachmentKey, pool: &str) -> CniError {
    CniError::new(
        code::TRY_AGAIN_LATER,
        format!("the agent stops while {key} waits for an address of pool {pool:?}; the runtime tries again"),
    )
}

/// The wait of this pod, if it had to wait, ends with an address.
fn log_end(agent: &Agent, waiter: &Waiter, attachment: &Attachment) {
    if let Some(waited) = agent.waiting.served(waiter, std::time::Instant::now()) {
        let (tries, seconds) = (waited.tries, waited.took.as_secs());
        tracing::info!(pair = %attachment.pair, pool = attachment.pool, tries, seconds, "{waiter} no longer waits: it has an address");
    }
}

/// The sentence in the log, when the pod's wait begins, and as events: on the pod, and on the pool, whose owner can do something about
/// it.
fn tell(agent: &Agent, waiter: &Waiter, pod: &PodRef, pool: &str, sentence: &str) {
    if agent.waiting.found_none(waiter, pool, std::time::Instant::now()) {
        tracing::warn!("{waiter} waits for an address: {sentence}");
    }
    agent.events.pod_warning(pod, "PoolExhausted", sentence);
    if let Some(pool) = agent.cluster.pool(pool) {
        agent.events.pool_warning(&pool, "PoolExhausted", sentence);
    }
}

/// Whether a failed claim says that no block can be had now. A lost race does not.
fn is_final(trouble: &ClaimError) -> bool {
    !matches!(trouble, ClaimError::Contended(_))
}

fn sentence(agent: &Agent, pool: &str, trouble: Option<&ClaimError>) -> String {
    let node = &agent.args.node_name;
    let uses = agent.node_state.pool_use(pool, agent.cooldown(pool));
    let held: u32 = uses.iter().map(|block| block.held).sum();
    let remedy = match trouble {
        Some(ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_)) => {
            "append a subnet to the pool, or delete pods that use it".to_owned()
        }
        Some(ClaimError::Limit { .. }) => {
            "raise the pool's maxBlocksPerNode, or delete pods of this node that use it".to_owned()
        }
        Some(ClaimError::NotReady { .. } | ClaimError::Refused { .. } | ClaimError::UnusableBlock { .. }) => {
            format!("see kubectl get addresspool {pool} -o yaml, and kubectl describe node {node}")
        }
        _ => "see the agent's log on this node, and whether the API server answers".to_owned(),
    };
    let why = trouble.map_or_else(|| "no block could be claimed in time".to_owned(), ToString::to_string);
    let free = agent
        .cluster
        .pool(pool)
        .and_then(|pool| pool.status.as_ref().map(|status| (status.used, status.blocks.claimed, status.blocks.total)))
        // A status that does not know of this node's own addresses yet says nothing about the pool.
        .filter(|(used, ..)| *used >= i64::from(held))
        .map_or_else(String::new, |(used, claimed, total)| {
            format!("; in all of the pool {used} addresses are in use and {claimed} of {total} blocks are claimed")
        });
    format!(
        "pool {pool:?} has no free address for node {node}: {held} are in use in its {} blocks, and {why}{free}; {remedy}; the ADD is tried again by itself",
        uses.len()
    )
}
