//! ADD: an address, a record and a wired pod, or an error and nothing left behind (design of the life of an address: ARCHITECTURE.md).

mod address;
mod result;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{Call, CniError, NetConf, code};
use bobbin_datapath::{AttachError, Attached};
use bobbin_ipam::AttachmentKey;
use tokio::time::Instant;

use address::Wanted;

use super::{Failure, LOCK_TIMEOUT, busy, called_off, pod_of};
use crate::agent::{Agent, DuplicateOutcome};
use crate::args::Mode;
use crate::attachment_lock::Turn;
use crate::choose::{Chosen, choose_pool};
use crate::ledger::{Attachment, Links, Permit, Phase, PodRef, Taken};
use crate::record::Verdict;

/// How many addresses an ADD tries before it fails. It drops one that another record has, or whose block became doubted.
const ATTEMPTS: usize = 8;

/// Adds the attachment; answers the result's bytes.
///
/// # Errors
/// What the runtime is told; nothing is left behind.
pub async fn add(
    agent: &Arc<Agent>,
    call: &Call,
    key: AttachmentKey,
    conf: &NetConf,
    netns: Option<OwnedFd>,
) -> Result<Vec<u8>, Failure> {
    if agent.args.mode == Mode::Remove {
        return Err(CniError::new(
            code::TRY_AGAIN_LATER,
            format!(
                "{key} gets no address: Bobbin is leaving node {} (agent.mode=remove); use another CNI plugin there, or set agent.mode to run",
                agent.args.node_name
            ),
        )
        .into());
    }
    let path = call.netns.clone().unwrap_or_default();
    let netns = netns.ok_or_else(|| {
        CniError::new(code::INVALID_ENVIRONMENT, format!("CNI_NETNS {path:?} of {key} did not arrive as a network namespace: the runtime must name one that exists"))
    })?;
    let ours = bobbin_datapath::is_own_netns(&netns).map_err(|error| {
        kernel_refused(&format!(
            "CNI_NETNS {path:?} of {key} can't be told from the node's own network namespace: {error}"
        ))
    })?;
    if ours {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!(
                "CNI_NETNS {path:?} of {key} is the node's own network namespace: the runtime must name the container's"
            ),
        )
        .into());
    }
    let turn = agent.turns.take(&key, LOCK_TIMEOUT).await.ok_or_else(|| busy(&key))?;
    if let Some(known) = agent.ledger.attachment(&key) {
        match repeated(agent, &known, conf, &path, &netns).await? {
            Some(answer) => return Ok(answer),
            None => {
                agent.end(&known).await.map_err(|error| kernel_refused(&error.to_string()))?;
            }
        }
    }
    fresh(agent, &turn, &key, &pod_of(call), conf, &path, netns).await
}

/// The answer to a repeated ADD, if everything is as the first one left it. `None`: something is definitely missing.
///
/// # Errors
/// The kernel could not tell: what can't be read is in use, and stays.
async fn repeated(
    agent: &Agent,
    known: &Attachment,
    conf: &NetConf,
    path: &str,
    netns: &OwnedFd,
) -> Result<Option<Vec<u8>>, CniError> {
    let Some(links) = known.links.as_ref().filter(|_| known.phase == Phase::Live) else { return Ok(None) };
    let unknown = |why: String| {
        let what = format!(
            "whether {} is wired as before could not be read: {why}; nothing was changed, the runtime tries again",
            known.key
        );
        CniError::new(code::TRY_AGAIN_LATER, what)
    };
    let netns = netns.try_clone().map_err(|error| unknown(error.to_string()))?;
    let wiring = agent.wiring(&known.key, known.pair);
    let misses = agent.network.check(&wiring, netns).await.map_err(|error| unknown(error.to_string()))?;
    Ok(misses.is_empty().then(|| result::of(known, links, conf, path).to_json(conf.cni_version)))
}

async fn fresh(
    agent: &Arc<Agent>,
    turn: &Turn,
    key: &AttachmentKey,
    pod: &PodRef,
    conf: &NetConf,
    path: &str,
    netns: OwnedFd,
) -> Result<Vec<u8>, Failure> {
    let until = Instant::now() + agent.args.hold_add;
    let chosen = turn.unless_called_off(choose_pool(&agent.view, pod, agent.args.unknown_pod)).await;
    let chosen = chosen.ok_or_else(|| called_off(key, "its pod and its pool"))?;
    let Chosen { selection, pod, pod_seen } = chosen.map_err(|error| {
        let told = error.to_cni();
        agent.events.pod_warning(pod, "NoAddress", &told.msg);
        told
    })?;
    let mut spent = agent.await_first_read().await;
    let wanted = Wanted { key, pod: &pod, pod_seen, pool: &selection.pool, netns: path, network: &conf.name };
    for _ in 0..ATTEMPTS {
        // Before an address is taken: from then on whatever fails has to be undone.
        let netns = netns.try_clone().map_err(|error| {
            kernel_refused(&format!("the network namespace {path:?} of {key} could not be held open: {error}"))
        })?;
        let Taken { attachment, permit } = address::take(agent, turn, &wanted, until).await?;
        // Both are waits for the API server.
        let wait = confirm_wait(agent, &permit).saturating_sub(std::mem::take(&mut spent));
        match confirmed(agent, turn, &attachment, &permit, netns, wait).await? {
            Confirmed::Ours(links) => {
                tracing::info!(pair = %attachment.pair, pool = selection.pool, chosen_by = ?selection.source, pod = %format!("{}/{}", pod.namespace, pod.name), "added");
                return Ok(result::of(&attachment, &links, conf, path).to_json(conf.cni_version));
            }
            Confirmed::Doubted => {
                tracing::info!(pair = %attachment.pair, %key, block = permit.block, "the block of an address became doubted: the pod gets another address");
            }
            Confirmed::Taken { by, node } if node == agent.args.node_name => {
                // A sign of trouble: the resync compares the records at once.
                agent.found_duplicate(attachment.pair, &by);
                tracing::warn!(pair = %attachment.pair, %key, by, "another record of this node has the address: the pod gets another one, and the address is passed over until that record is gone");
            }
            Confirmed::Taken { by, .. } => {
                agent.found_duplicate(attachment.pair, &by);
                agent.report_duplicate(&attachment, &by, DuplicateOutcome::NotUsed);
            }
        }
    }
    Err(CniError::new(
        code::TRY_AGAIN_LATER,
        format!(
            "{ATTEMPTS} addresses of pool {:?} on node {} are recorded for others, or their blocks became doubted: see the events of the node (kubectl describe node {1}); the runtime tries again",
            selection.pool, agent.args.node_name
        ),
    )
    .into())
}

enum Confirmed {
    Ours(Links),
    /// Undone: somebody else has a record of the address.
    Taken {
        by: String,
        node: String,
    },
    /// Undone: the block may not be ours any more.
    Doubted,
}

/// Wires the pod and creates its record at the same time, then waits up to `wait` for the API server to answer. On an error, undoes both.
async fn confirmed(
    agent: &Arc<Agent>,
    turn: &Turn,
    attachment: &Attachment,
    permit: &Permit,
    netns: OwnedFd,
    wait: Duration,
) -> Result<Confirmed, CniError> {
    let key = &attachment.key;
    if let Err(error) = agent.journal.keep(attachment) {
        agent.ledger.release(key, bobbin_datapath::boot_time());
        return Err(CniError::new(
            code::IO_FAILURE,
            format!(
                "attachment {key} could not be written down: {error}; see that the node's {} can be written",
                agent.args.run_dir.display()
            ),
        ));
    }
    let until = Instant::now() + wait;
    let verdict = agent.recorder.create(attachment);
    let wired = match wire(agent, attachment, netns).await {
        Ok(attached) => attached,
        Err(error) => {
            drop(verdict);
            undo(agent, attachment).await;
            return Err(error);
        }
    };
    let waits = std::time::Instant::now();
    let wait = until.saturating_duration_since(Instant::now());
    let verdict = turn.unless_called_off(agent.recorder.verdict(verdict, attachment.pair, wait)).await;
    agent.metrics.waited(waits.elapsed());
    let Some(verdict) = verdict else {
        undo(agent, attachment).await;
        return Err(called_off(key, "the API server's answer to its record"));
    };
    let uid = match verdict {
        Some(Verdict::Recorded { uid }) => Some(uid),
        Some(Verdict::Taken { by, node, .. }) => {
            undo(agent, attachment).await;
            return Ok(Confirmed::Taken { by, node });
        }
        Some(Verdict::Refused(why)) => {
            undo(agent, attachment).await;
            return Err(CniError::new(
                code::TRY_AGAIN_LATER,
                format!(
                    "the API server refuses the record of address {} for {key} on node {}: {why}; see the agent's rights and the block {}",
                    attachment.pair, agent.args.node_name, attachment.block
                ),
            ));
        }
        None => None,
    };
    if !agent.ledger.permit_is_valid(permit) {
        undo(agent, attachment).await;
        return Ok(Confirmed::Doubted);
    }
    let links = links_of(&wired);
    agent.update(key, |attachment| {
        attachment.phase = Phase::Live;
        attachment.links = Some(links.clone());
        if uid.is_some() {
            attachment.assignment_uid = uid;
        }
    });
    Ok(Confirmed::Ours(links))
}

/// How long an ADD waits for the answer to its record. The claim on the block makes the address the node's; the answer only guards
/// against a claim gone wrong, so a proven block needs none.
fn confirm_wait(agent: &Agent, permit: &Permit) -> Duration {
    if agent.freshness.proves(permit.proof, bobbin_datapath::boot_time()) {
        return Duration::ZERO;
    }
    agent.metrics.unproven.inc();
    // Behind this ADD the block is read, so that the next one need not wait.
    agent.resync.notify_one();
    agent.args.confirm_wait
}

async fn wire(agent: &Arc<Agent>, attachment: &Attachment, netns: OwnedFd) -> Result<Attached, CniError> {
    agent.prepare(attachment.pair).await.map_err(|error| kernel_refused(&error.to_string()))?;
    let begun = std::time::Instant::now();
    let wiring = agent.wiring(&attachment.key, attachment.pair);
    let attached = agent.network.attach(&wiring, netns).await;
    agent.metrics.wired(begun.elapsed());
    attached.map_err(|error| {
        let node = &agent.args.node_name;
        let key = &attachment.key;
        let code = match &error {
            AttachError::InterfaceExists { .. } => code::INTERFACE_EXISTS,
            AttachError::HostNetns(_) => code::INVALID_ENVIRONMENT,
            AttachError::NetnsGone { .. } => code::CONTAINER_UNKNOWN,
            _ => code::KERNEL_REFUSED,
        };
        CniError::new(code, format!("{key} on node {node} could not be wired: {error}"))
    })
}

/// Undoes an ADD. What can't be undone stays held, and the sweep goes on with it.
async fn undo(agent: &Agent, attachment: &Attachment) {
    if let Err(error) = agent.end(attachment).await {
        tracing::error!(%error, "a failed ADD could not be undone");
    }
}

fn links_of(attached: &Attached) -> Links {
    Links {
        host_if: attached.host_if.clone(),
        host_mac: mac(attached.host_mac),
        container_mac: mac(attached.container_mac),
        mtu: attached.mtu,
        netns: attached.netns,
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn kernel_refused(why: &str) -> CniError {
    CniError::new(code::KERNEL_REFUSED, why.to_owned())
}
