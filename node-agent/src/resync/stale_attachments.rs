//! The stale-attachment check completes failed DELs. If two checks at different times found an attachment's network namespace or pod gone,
//! the check removes the attachment without a DEL. If too many attachments look stale, the breaker stops the removal. A missing link alone
//! does not make an attachment stale.

mod decision;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_crds::MAX_COOLDOWN;
use bobbin_datapath::{NetnsPresence, boot_time};
use bobbin_ipam::deletion_guard::Breaker;
use bobbin_ipam::{AttachmentKey, DeletionGuard};
use bobbin_messages::event::agent as event;
use kube::Client;

use crate::agent::Agent;
use crate::blocks::demand::waiting_pods::WaitingPods;
use crate::resync::pod_absence::{Candidate, PodAbsenceTracker};
use crate::state::{Attachment, AttachmentId, AttachmentPhase};
use decision::RemovalReason;

/// The results of earlier stale-attachment checks, kept for the next check.
struct CheckHistory {
    netns_gone: DeletionGuard<AttachmentId>,
    pod_gone: PodAbsenceTracker<AttachmentId>,
    /// The attachments whose interface was in another namespace at the last check. The value of each entry says whether the agent has
    /// reported the move.
    moved: HashMap<AttachmentKey, bool>,
    tripped: Option<Breaker>,
}

/// Checks the attachments every `--stale-check-interval` until the agent shuts down. `client` reads pods and the Node. `pod_absence` is the
/// minimum time between the two reads that prove that a pod is gone.
pub async fn run(agent: &Arc<Agent>, waiting: &WaitingPods, client: Client, pod_absence: Duration) {
    let mut history = CheckHistory {
        netns_gone: DeletionGuard::new(),
        pod_gone: PodAbsenceTracker::new(&agent.args.node_name, pod_absence),
        moved: HashMap::new(),
        tripped: None,
    };
    loop {
        tokio::select! {
            () = agent.stop.cancelled() => return,
            () = tokio::time::sleep(agent.args.stale_check_interval) => {}
        }
        check(agent, &client, &mut history).await;
        agent.checkpoint.prune_cooling(boot_time().before(MAX_COOLDOWN));
        for (waiter, waited) in waiting.expired(Instant::now()) {
            let (tries, seconds) = (waited.tries, waited.took.as_secs());
            tracing::info!(
                pool = waited.pool,
                tries,
                seconds,
                "{waiter} no longer waits for an address, because the runtime has stopped repeating the ADD"
            );
        }
    }
}

/// Checks all attachments of the node once.
async fn check(agent: &Arc<Agent>, client: &Client, history: &mut CheckHistory) {
    let all = agent.node_state.attachments();
    // Remove an attachment without further evidence if a DEL or a failed ADD has already begun to remove it.
    let (unfinished, others): (Vec<Attachment>, Vec<Attachment>) =
        all.into_iter().partition(|attachment| attachment.phase == AttachmentPhase::Deleting);
    for attachment in &unfinished {
        end(agent, attachment, RemovalReason::Del).await;
    }
    let idle = idle(agent, others).await;
    note_seen_pods(agent, &idle).await;
    let found = presence_of(agent, &idle).await;
    report_moved(agent, &idle, &found, &mut history.moved);

    let netns_gone: HashSet<AttachmentId> = idle
        .iter()
        .filter(|attachment| found.get(&attachment.key) == Some(&NetnsPresence::NetnsGone))
        .map(Attachment::id)
        .collect();
    let apart = agent.args.stale_check_interval.mul_f32(0.9);
    let netns = history.netns_gone.observe(&netns_gone, idle.len(), boot_time(), apart);
    let candidates = candidates(agent, &idle);
    let pods = history.pod_gone.check(client, &candidates, boot_time()).await;
    match decision::decide(netns, pods, idle.len()) {
        Ok(removable) => {
            history.tripped = None;
            agent.metrics.stale_check_timestamp.set(jiff::Timestamp::now().as_second());
            for attachment in &idle {
                if let Some(reason) = removable.get(&attachment.id()) {
                    end(agent, attachment, *reason).await;
                }
            }
        }
        Err(breaker) => report_trip(agent, breaker, &mut history.tripped),
    }
}

/// Marks each attachment whose pod the API server has shown to this agent, so that the agent can later prove that the pod is gone.
async fn note_seen_pods(agent: &Agent, idle: &[Attachment]) {
    for attachment in idle.iter().filter(|attachment| !attachment.pod_seen && !attachment.pod.uid.is_empty()) {
        let pod = &attachment.pod;
        let shown = agent.cluster.cached_pod(&pod.namespace, &pod.name, &pod.uid);
        if shown.is_some_and(|shown| shown.uid == pod.uid)
            // Without the lock, the update could write the checkpoint of an attachment that a concurrent DEL has just removed.
            && let Some(_lock) = agent.locks.lock(&attachment.key, Duration::ZERO).await
        {
            agent.update(&attachment.key, |attachment| attachment.pod_seen = true);
        }
    }
}

/// The attachments for which no CNI command is running.
async fn idle(agent: &Agent, attachments: Vec<Attachment>) -> Vec<Attachment> {
    let mut idle = Vec::with_capacity(attachments.len());
    for attachment in attachments {
        if agent.locks.lock(&attachment.key, Duration::ZERO).await.is_some() {
            idle.push(attachment);
        }
    }
    idle
}

/// Asks the kernel whether each attachment's link and network namespace still exist. Returns an empty map if the kernel does not answer.
async fn presence_of(agent: &Agent, attachments: &[Attachment]) -> HashMap<AttachmentKey, NetnsPresence> {
    let netns = |attachment: &Attachment| attachment.links.as_ref().and_then(|links| links.netns);
    let asked = attachments.iter().map(|attachment| (attachment.key.clone(), netns(attachment))).collect();
    agent.network.presence(asked).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the agent could not read from the kernel which network namespaces are gone, so every attachment counts as in use");
        HashMap::new()
    })
}

/// The attachments whose pods the watch does not show on this node. Only these pods need live reads.
fn candidates(agent: &Agent, idle: &[Attachment]) -> Vec<Candidate<AttachmentId>> {
    let not_cached = |attachment: &&Attachment| {
        let pod = &attachment.pod;
        agent.cluster.cached_pod(&pod.namespace, &pod.name, &pod.uid).is_none()
    };
    idle.iter()
        .filter(not_cached)
        .map(|attachment| Candidate { key: attachment.id(), pod: attachment.pod.clone(), seen: attachment.pod_seen })
        .collect()
}

/// Reports once, in the log and as an event on the pod, that an interface was moved to another namespace. While the kernel removes a
/// namespace, its interface seems moved for a moment. So the agent reports only a move that two checks in a row have found.
fn report_moved(
    agent: &Agent,
    idle: &[Attachment],
    found: &HashMap<AttachmentKey, NetnsPresence>,
    reported: &mut HashMap<AttachmentKey, bool>,
) {
    let moved = |attachment: &&Attachment| found.get(&attachment.key) == Some(&NetnsPresence::Moved);
    let now: Vec<&Attachment> = idle.iter().filter(moved).collect();
    reported.retain(|key, _| now.iter().any(|attachment| attachment.key == *key));
    for attachment in now {
        let Some(reported) = reported.get_mut(&attachment.key) else {
            reported.insert(attachment.key.clone(), false);
            continue;
        };
        if !std::mem::replace(reported, true) {
            let sentence = decision::moved_sentence(attachment);
            tracing::warn!(key = %attachment.key, "{sentence}");
            agent.events.on_pod(&attachment.pod, &event::INTERFACE_MOVED, &sentence);
        }
    }
}

/// Reports that the breaker stopped a check. Publishes an event each time, but writes to the log only when the breaker's numbers change.
fn report_trip(agent: &Agent, breaker: Breaker, tripped: &mut Option<Breaker>) {
    agent.metrics.breaker_trips.inc();
    let sentence = decision::trip_sentence(&agent.args.node_name, breaker);
    agent.events.on_node(&event::STALE_REMOVAL_STOPPED, &sentence);
    if tripped.replace(breaker) != Some(breaker) {
        tracing::error!("{sentence}");
    }
}

/// Checks the attachment again under its lock, and then removes it as a DEL does.
async fn end(agent: &Arc<Agent>, seen: &Attachment, reason: RemovalReason) {
    let key = &seen.key;
    let Some(_lock) = agent.locks.lock(key, Duration::ZERO).await else { return };
    let Some(now) = agent.node_state.attachment(key).filter(|now| now.id() == seen.id()) else { return };
    if reason == RemovalReason::NetnsGone
        && presence_of(agent, std::slice::from_ref(&now)).await.get(key) != Some(&NetnsPresence::NetnsGone)
    {
        return;
    }
    match agent.end(&now).await {
        // `Agent::end` has already logged that it could not remove the checkpoint.
        Ok(false) => {}
        Ok(true) => {
            if reason != RemovalReason::Del {
                agent.metrics.stale_attachments_removed.inc();
            }
            tracing::info!(%key, pair = %now.pair, pod = %format!("{}/{}", now.pod.namespace, now.pod.name), "{reason}");
        }
        Err(error) => {
            tracing::warn!(%key, %error, "the agent could not remove a stale attachment; the next check tries again");
        }
    }
}
