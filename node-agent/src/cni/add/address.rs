//! Allocates an address for an ADD. If the node has no free address, the ADD waits until the node claims a block or another pod frees an
//! address.

use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{CniError, code};
use bobbin_datapath::boot_time;
use bobbin_ipam::AttachmentKey;
use bobbin_messages::event::agent as event;
use tokio::time::{Instant, timeout_at};

use super::AddContext;
use super::no_address::{operator_can_help, sentence};
use crate::agent::Agent;
use crate::blocks::claim::ClaimError;
use crate::blocks::demand::WaitingAdd;
use crate::blocks::demand::waiting_pods::Waiter;
use crate::cni::attachment_lock::AttachmentLock;
use crate::cni::{VerbError, interrupted_by_del};
use crate::state::{Allocation, AllocationRequest, AssignError, Attachment, PodRef};

/// The longest time that an ADD waits for the operator to create a block. The wait is also limited to half of the ADD's remaining time.
/// After this wait, the ADD may get an address that is still cooling down.
const NEW_BLOCK_WAIT: Duration = Duration::from_secs(3);

/// The attachment that needs an address, and the pool that the address must come from.
pub(super) struct AddTarget<'a> {
    /// The attachment that needs an address.
    pub key: &'a AttachmentKey,
    /// The attachment's pod.
    pub pod: &'a PodRef,
    /// Whether the API server has shown this agent a pod with the UID that the runtime passed.
    pub pod_seen: bool,
    /// The pool that the address must come from.
    pub pool: &'a str,
    /// The path of the container's network namespace.
    pub netns: &'a str,
    /// The name of the CNI network.
    pub network: &'a str,
}

/// Allocates an address. If the node has no free address, waits until `until` for a block or a freed address.
///
/// # Errors
/// Code 11 if the pool has no address for this node, or if the attachment already has an address. Also code 11 if a DEL or the agent's
/// shutdown ends the wait.
pub(super) async fn allocate(
    agent: &Arc<Agent>,
    context: &AddContext,
    lock: &AttachmentLock,
    target: &AddTarget<'_>,
    until: Instant,
) -> Result<Allocation, VerbError> {
    let AddTarget { key, pod, pool, .. } = *target;
    let waiter = Waiter::of(pod, key);
    let request = AllocationRequest {
        key,
        pod,
        pod_seen: target.pod_seen,
        pool,
        cooldown: agent.cooldown(pool),
        boot_id: &agent.boot_id,
        netns: Some(target.netns),
        network: Some(target.network),
        at: jiff::Timestamp::now(),
    };
    let mut node_state = agent.node_state.changed();
    let mut cluster = agent.cluster.changed();
    let mut demand: Option<WaitingAdd> = None;
    // Whether a claim has ended since this ADD asked for a block. The ADD ignores the results of earlier claims, because they may be
    // outdated.
    let mut claim_tried = false;
    let mut reported = false;
    let left = until.saturating_duration_since(Instant::now());
    let new_block_until = Instant::now() + NEW_BLOCK_WAIT.min(left / 2);
    loop {
        node_state.mark_unchanged();
        cluster.mark_unchanged();
        match agent.node_state.assign(&request, boot_time()) {
            Ok(allocation) => {
                log_end_of_wait(context, &waiter, &allocation.attachment);
                return Ok(allocation);
            }
            Err(AssignError::AlreadyAllocated(known)) => {
                return Err(CniError::new(
                    code::TRY_AGAIN_LATER,
                    format!(
                        "attachment {key} already got address {} from another call; the runtime tries again",
                        known.pair
                    ),
                )
                .into());
            }
            Err(AssignError::NoFreeAddress { .. } | AssignError::NoBlock) => {}
        }
        let demand = demand.get_or_insert_with(|| context.demand.demand(pool));
        let trouble = context.demand.last_claim_error(pool).filter(|_| claim_tried);
        let waits_for_operator = Instant::now() < new_block_until
            && trouble.as_deref().is_some_and(|trouble| operator_can_help(agent, pool, trouble));
        if trouble.as_deref().is_some_and(is_final) && !waits_for_operator {
            // The node can claim no block, so allocate an address that is still cooling down. The pod could not start otherwise.
            if let Ok(allocation) = agent.node_state.assign_early(&request, boot_time()) {
                agent.metrics.early_reuses.inc();
                tracing::warn!(pair = %allocation.attachment.pair, pool, "the agent allocated an address before the end of its cool-down, because the pool has no other address for this node");
                log_end_of_wait(context, &waiter, &allocation.attachment);
                return Ok(allocation);
            }
            if !reported && !context.demand.may_serve_waiting(pool) {
                reported = true;
                report(agent, context, &waiter, pod, pool, &sentence(agent, pool, trouble.as_deref()));
            }
        }
        let woken = async {
            tokio::select! {
                _ = node_state.changed() => None,
                _ = cluster.changed() => None,
                () = demand.tried() => {
                    claim_tried = true;
                    None
                }
                () = lock.del_waits() => Some(interrupted_by_del(key, &format!("an address of pool {pool:?}"))),
                () = agent.stop.cancelled() => Some(shutting_down(key, pool)),
            }
        };
        let woken = timeout_at(if waits_for_operator { new_block_until } else { until }, woken).await;
        if let Ok(Some(error)) = woken {
            tracing::info!("{error}");
            return Err(VerbError::logged(error));
        }
        if woken.is_err() && until <= Instant::now() {
            let msg = sentence(agent, pool, context.demand.last_claim_error(pool).as_deref());
            if !reported {
                report(agent, context, &waiter, pod, pool, &msg);
            }
            return Err(VerbError::logged(CniError::new(code::TRY_AGAIN_LATER, msg)));
        }
    }
}

fn shutting_down(key: &AttachmentKey, pool: &str) -> CniError {
    CniError::new(
        code::TRY_AGAIN_LATER,
        format!(
            "{key} gets no address of pool {pool:?} now, because the agent is shutting down; the runtime tries again"
        ),
    )
}

/// Logs the end of the pod's wait for an address, if the pod had to wait.
fn log_end_of_wait(context: &AddContext, waiter: &Waiter, attachment: &Attachment) {
    if let Some(waited) = context.waiting.served(waiter, std::time::Instant::now()) {
        let (tries, seconds) = (waited.tries, waited.took.as_secs());
        tracing::info!(pair = %attachment.pair, pool = attachment.pool, tries, seconds, "{waiter} no longer waits for an address, because it got one");
    }
}

/// Logs that a pod has begun to wait for an address. Publishes an event on the pod. Also publishes an event on the pool, because the pool's
/// owner can append a subnet.
fn report(agent: &Agent, context: &AddContext, waiter: &Waiter, pod: &PodRef, pool: &str, sentence: &str) {
    if context.waiting.found_none(waiter, pool, std::time::Instant::now()) {
        tracing::warn!("{waiter} waits for an address: {sentence}");
    }
    agent.events.on_pod(pod, &event::POOL_EXHAUSTED, sentence);
    if let Some(pool) = agent.cluster.pool(pool) {
        agent.events.on_pool(&pool, &event::POOL_EXHAUSTED, sentence);
    }
}

/// Whether the error means that the node can claim no block now. False if other nodes claimed the blocks first, because another claim may
/// then succeed.
fn is_final(trouble: &ClaimError) -> bool {
    !matches!(trouble, ClaimError::Contended(_))
}
