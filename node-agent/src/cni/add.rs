//! ADD: allocates an address, creates its IPAssignment and wires the pod. A failed ADD undoes these three steps.

mod address;
mod confirm;
mod no_address;
mod object_warnings;
mod result;
mod wiring;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{Call, CniError, NetConf, code};
use bobbin_ipam::AttachmentKey;
use bobbin_messages::event::agent as event;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::call_record::{self, Stage, stage};
use super::{LOCK_TIMEOUT, VerbError, busy, interrupted_by_del, pod_of};
use crate::agent::{Agent, DuplicateOutcome};
use crate::args::Mode;
use crate::blocks::demand::DemandController;
use crate::blocks::demand::waiting_pods::WaitingPods;
use crate::cluster::pool_selection::{SelectedPool, select_pool_for_pod};
use crate::cni::attachment_lock::AttachmentLock;
use crate::state::{Allocation, Attachment, AttachmentPhase, Links};
use address::AddTarget;
use confirm::{ConfirmOptions, Confirmed, confirm, confirm_until};
use object_warnings::ObjectWarnings;
use wiring::{PreparedFamilies, kernel_refused};

/// The parts of the agent that only ADD uses.
pub struct AddContext {
    /// Claims blocks for waiting ADDs.
    demand: DemandController,
    /// The pods that wait for an address.
    waiting: Arc<WaitingPods>,
    /// The progress of the agent's first read of the node's blocks.
    first_read: FirstRead,
    /// Wakes the resync.
    resync_trigger: Arc<Notify>,
    /// The address families for which the agent has set up the node's forwarding, routing rule and anti-spoofing filter.
    prepared: PreparedFamilies,
    /// Warns about settings of pods and namespaces.
    warnings: ObjectWarnings,
}

/// The progress of the agent's first read of the node's blocks after the start of the agent.
#[derive(Clone)]
pub struct FirstRead {
    /// True if the first read is done or has taken too long. ADDs then don't wait for the read.
    pub over: watch::Receiver<bool>,
    /// True if the first read is done.
    pub done: watch::Receiver<bool>,
}

impl FirstRead {
    /// Waits until the first read is done or has taken too long. If the read took too long, returns the time of this wait,
    /// by which the ADD shortens its wait for the confirmation. Otherwise, returns zero.
    async fn wait(&self) -> Duration {
        let begun = Instant::now();
        // Ignore an error: it means that the agent is shutting down.
        let _ = self.over.clone().wait_for(|over| *over).await;
        if *self.done.borrow() { Duration::ZERO } else { begun.elapsed() }
    }
}

impl AddContext {
    /// Creates a context in which no address family is set up yet.
    pub fn new(
        demand: DemandController,
        waiting: Arc<WaitingPods>,
        first_read: FirstRead,
        resync_trigger: Arc<Notify>,
    ) -> AddContext {
        let (prepared, warnings) = (PreparedFamilies::default(), ObjectWarnings::default());
        AddContext { demand, waiting, first_read, resync_trigger, prepared, warnings }
    }
}

/// Adds the attachment and returns the JSON of its result.
///
/// # Errors
/// If the ADD fails. A failed ADD undoes its steps before it returns. The error is the answer for the runtime.
pub async fn add(
    agent: &Arc<Agent>,
    context: &AddContext,
    call: &Call,
    key: AttachmentKey,
    conf: &NetConf,
    netns: Option<OwnedFd>,
) -> Result<Vec<u8>, VerbError> {
    if agent.args.mode == Mode::Remove {
        return Err(CniError::new(
            code::TRY_AGAIN_LATER,
            format!(
                "{} gets no address, because Bobbin is being removed from node {} (agent.mode=remove, or label bobbin.dev/agent=remove of the Node). Use another CNI plugin on this node. To use Bobbin again instead, undo what started the removal: set agent.mode=run, or remove the label",
                pod_of(call).or_container(&key),
                agent.args.node_name
            ),
        )
        .into());
    }
    let path = call.netns.as_deref().unwrap_or_default();
    let netns = container_netns(&key, path, netns)?;
    let lock = stage(Stage::Lock, agent.locks.lock(&key, LOCK_TIMEOUT)).await.ok_or_else(|| busy(agent, &key))?;
    if let Some(known) = agent.node_state.attachment(&key) {
        call_record::note_attachment(&known, &agent.network.host_if(&key));
        match repeated(agent, &known, conf, path, &netns).await? {
            Some(answer) => return Ok(answer),
            None => {
                agent.end(&known).await.map_err(|error| kernel_refused(&error.to_string()))?;
            }
        }
    }
    Box::pin(add_new(agent, context, &lock, &key, call, conf, netns)).await
}

/// Returns the network namespace of the call. Checks that this namespace is not the node's own network namespace.
fn container_netns(key: &AttachmentKey, path: &str, netns: Option<OwnedFd>) -> Result<OwnedFd, CniError> {
    let netns = netns.ok_or_else(|| {
        CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_NETNS of {key} is {path:?}, but the CNI plugin found no network namespace there. The runtime must set CNI_NETNS to an existing network namespace"),
        )
    })?;
    let is_host = bobbin_datapath::is_own_netns(&netns).map_err(|error| {
        kernel_refused(&format!(
            "the agent could not compare CNI_NETNS {path:?} of {key} with the node's own network namespace: {error}"
        ))
    })?;
    if is_host {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!(
                "CNI_NETNS {path:?} of {key} is the node's own network namespace. The runtime must set CNI_NETNS to the container's network namespace"
            ),
        ));
    }
    Ok(netns)
}

/// Returns the answer to a repeated ADD if the kernel shows that the pod is still wired. Returns `None` if a part of the wiring is missing.
///
/// # Errors
/// If the agent can't read the wiring from the kernel. The attachment then stays, because the pod may still use the address.
async fn repeated(
    agent: &Agent,
    known: &Attachment,
    conf: &NetConf,
    path: &str,
    netns: &OwnedFd,
) -> Result<Option<Vec<u8>>, CniError> {
    let Some(links) = known.links.as_ref().filter(|_| known.phase == AttachmentPhase::Live) else { return Ok(None) };
    let unknown = |why: String| {
        let what = format!(
            "the agent could not check whether {} is still wired: {why}. The agent changed nothing, and the runtime tries again",
            known.key
        );
        CniError::new(code::TRY_AGAIN_LATER, what)
    };
    let netns = netns.try_clone().map_err(|error| unknown(error.to_string()))?;
    let wiring = agent.wiring(&known.key, known.pair);
    let misses = agent.network.check(&wiring, netns).await.map_err(|error| unknown(error.to_string()))?;
    Ok(misses.is_empty().then(|| result::of(known, links, conf, path).to_json(conf.cni_version)))
}

async fn add_new(
    agent: &Arc<Agent>,
    context: &AddContext,
    lock: &AttachmentLock,
    key: &AttachmentKey,
    call: &Call,
    conf: &NetConf,
    netns: OwnedFd,
) -> Result<Vec<u8>, VerbError> {
    let (pod, path) = (&pod_of(call), call.netns.as_deref().unwrap_or_default());
    let until = Instant::now() + agent.args.add_timeout;
    let chosen = lock.unless_del_waits(select_pool_for_pod(&agent.cluster, pod, agent.args.unknown_pod));
    let chosen = stage(Stage::Pool, chosen).await;
    let chosen = chosen.ok_or_else(|| interrupted_by_del(key, "its pod and its pool"))?;
    let known_pod = chosen.as_ref().map_or(pod, |chosen| &chosen.pod);
    context.warnings.report(agent, known_pod, &conf.runtime_config);
    let SelectedPool { selection, pod, pod_seen } = chosen.map_err(|error| {
        let error = error.to_cni();
        agent.events.on_pod(pod, &event::FAILED_ALLOCATE_ADDRESS, &error.msg);
        error
    })?;
    call_record::note_pool(&pod, &selection.pool);
    tracing::debug!(pool = selection.pool, chosen_by = ?selection.source, "the agent selected the pool of the pod");
    let target = AddTarget { key, pod: &pod, pod_seen, pool: &selection.pool, netns: path, network: &conf.name };
    let (attachment, links) = assign_and_wire(agent, context, lock, &target, netns, until).await?;
    Ok(result::of(&attachment, &links, conf, path).to_json(conf.cni_version))
}

/// Allocates an address and wires the pod with it. Tries another address after a conflict.
async fn assign_and_wire(
    agent: &Arc<Agent>,
    context: &AddContext,
    lock: &AttachmentLock,
    target: &AddTarget<'_>,
    netns: OwnedFd,
    until: Instant,
) -> Result<(Attachment, Links), VerbError> {
    let AddTarget { key, pod, netns: path, pool, .. } = *target;
    let mut waited = stage(Stage::Blocks, context.first_read.wait()).await;
    let mut passed_over = 0_u32;
    loop {
        // Duplicate the file descriptor before the allocation, so that a failure leaves nothing to undo.
        let netns = netns.try_clone().map_err(|error| {
            kernel_refused(&format!("the agent could not keep the network namespace {path:?} of {key} open: {error}"))
        })?;
        let allocated = stage(Stage::Address, Box::pin(address::allocate(agent, context, lock, target, until))).await;
        let Allocation { attachment, token } = allocated?;
        call_record::note_attachment(&attachment, &agent.network.host_if(key));
        // If the ADD has waited too long for the first read of the blocks, it waits less for the confirmation.
        let confirm_until = confirm_until(agent, context, &token, std::mem::take(&mut waited), until);
        let options = ConfirmOptions { until: confirm_until, before_wiring: passed_over > 0 };
        match confirm(agent, context, lock, &attachment, &token, netns, options).await? {
            Confirmed::Wired(links) => return Ok((attachment, links)),
            Confirmed::BlockDoubted => {
                tracing::info!(pair = %attachment.pair, %key, block = token.block, "the pod gets another address, because this node may have lost the block of the allocated address");
            }
            Confirmed::Unconfirmed => {
                let why = format!(
                    "{} does not get address {} of block {} on node {}, because the API server did not confirm the IPAssignment in time. Without the confirmation, a pod of another node may have this address. The runtime tries again. If the ADD fails again, find out why the API server does not answer",
                    pod.or_container(key),
                    attachment.pair,
                    token.block,
                    agent.args.node_name
                );
                return Err(CniError::new(code::TRY_AGAIN_LATER, why).into());
            }
            Confirmed::Conflict { by, node } if node == agent.args.node_name => {
                passed_over += 1;
                // `found_duplicate` also triggers a resync, which looks for further conflicts in the address's block.
                agent.found_duplicate(attachment.pair, &by);
                tracing::warn!(pair = %attachment.pair, %key, by, "the address allocated for this pod already has an IPAssignment for another attachment on this node. The pod gets another address. This node does not allocate the conflicting address while that IPAssignment exists");
            }
            Confirmed::Conflict { by, .. } => {
                passed_over += 1;
                agent.found_duplicate(attachment.pair, &by);
                agent.report_duplicate(&attachment, &by, DuplicateOutcome::NotUsed);
            }
        }
        if Instant::now() >= until {
            return Err(CniError::new(code::TRY_AGAIN_LATER, timed_out(agent, pool, key, passed_over)).into());
        }
    }
}

fn timed_out(agent: &Agent, pool: &str, key: &AttachmentKey, passed_over: u32) -> String {
    let why = if passed_over == 0 {
        "the node may have lost its blocks".to_owned()
    } else {
        format!("the IPAssignments of {passed_over} addresses belong to other attachments")
    };
    format!(
        "node {1} found no address of pool {pool:?} for {key} within {0} s, because {why}. The runtime tries again. See the node's events: kubectl describe node {1}",
        agent.args.add_timeout.as_secs(),
        agent.args.node_name
    )
}
