//! Frees attachments for which nobody called DEL: their network namespace is gone, or their pod is. Each needs two looks apart in time, and
//! a pass that would free much stops. Also finishes what a DEL began. A missing link alone frees nothing.

mod decision;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_crds::MAX_COOLDOWN;
use bobbin_datapath::{NetnsPresence, boot_time};
use bobbin_ipam::deletion_guard::Breaker;
use bobbin_ipam::{AttachmentKey, DeletionGuard};
use kube::Client;

use crate::agent::Agent;
use crate::ledger::{Attachment, Phase};
use crate::pod_gone::{Candidate, PodGone};
use decision::{Evidence, Identity, identity};

/// What earlier looks found.
struct Looks {
    netns_gone: DeletionGuard<Identity>,
    pod_gone: PodGone<Identity>,
    /// Attachments whose interface was in another namespace at the last look, and whether that was told.
    moved: HashMap<AttachmentKey, bool>,
    tripped: Option<Breaker>,
}

/// Looks every `--sweep-interval` until the agent stops. `client` reads pods and the Node; `pod_absence` is how long a pod must be gone.
pub async fn run(agent: &Arc<Agent>, client: Client, pod_absence: Duration) {
    let mut looks = Looks {
        netns_gone: DeletionGuard::new(),
        pod_gone: PodGone::new(&agent.args.node_name, pod_absence),
        moved: HashMap::new(),
        tripped: None,
    };
    loop {
        tokio::select! {
            () = agent.stop.cancelled() => return,
            () = tokio::time::sleep(agent.args.sweep_interval) => {}
        }
        look(agent, &client, &mut looks).await;
        agent.journal.prune_cooling(boot_time().before(MAX_COOLDOWN));
        for (waiter, waited) in agent.waiting.given_up(Instant::now()) {
            let (tries, seconds) = (waited.tries, waited.took.as_secs());
            tracing::info!(
                pool = waited.pool,
                tries,
                seconds,
                "{waiter} no longer waits: the runtime has stopped trying"
            );
        }
    }
}

/// One look at everything.
async fn look(agent: &Arc<Agent>, client: &Client, looks: &mut Looks) {
    let all = agent.ledger.attachments();
    // The DEL is the evidence: what it began needs no looks.
    let (unfinished, living): (Vec<Attachment>, Vec<Attachment>) =
        all.into_iter().partition(|attachment| attachment.phase == Phase::Deleting);
    for attachment in &unfinished {
        end(agent, attachment, Evidence::Del).await;
    }
    let idle = idle(agent, living).await;
    note_seen_pods(agent, &idle).await;
    let found = presence_of(agent, &idle).await;
    tell_moved(agent, &idle, &found, &mut looks.moved);

    let netns_gone: HashSet<Identity> = idle
        .iter()
        .filter(|attachment| found.get(&attachment.key) == Some(&NetnsPresence::NetnsGone))
        .map(identity)
        .collect();
    let apart = agent.args.sweep_interval.mul_f32(0.9);
    let netns = looks.netns_gone.look(&netns_gone, idle.len(), boot_time(), apart);
    let candidates = candidates(agent, &idle);
    let pods = looks.pod_gone.look(client, &candidates, boot_time()).await;
    match decision::decide(netns, pods, idle.len()) {
        Ok(free) => {
            looks.tripped = None;
            agent.metrics.last_sweep.set(jiff::Timestamp::now().as_second());
            for attachment in &idle {
                if let Some(evidence) = free.get(&identity(attachment)) {
                    end(agent, attachment, *evidence).await;
                }
            }
        }
        Err(breaker) => stopped(agent, breaker, &mut looks.tripped),
    }
}

/// Remembers which pods the API server has shown since their ADD: later their absence means something.
async fn note_seen_pods(agent: &Agent, idle: &[Attachment]) {
    for attachment in idle.iter().filter(|attachment| !attachment.pod_seen && !attachment.pod.uid.is_empty()) {
        let pod = &attachment.pod;
        let shown = agent.view.cached_pod(&pod.namespace, &pod.name, &pod.uid);
        if shown.is_some_and(|shown| shown.uid == pod.uid)
            // A DEL that ends meanwhile must not find its checkpoint written again.
            && let Some(_turn) = agent.turns.take(&attachment.key, Duration::ZERO).await
        {
            agent.update(&attachment.key, |attachment| attachment.pod_seen = true);
        }
    }
}

/// The attachments on which no verb works now.
async fn idle(agent: &Agent, living: Vec<Attachment>) -> Vec<Attachment> {
    let mut idle = Vec::with_capacity(living.len());
    for attachment in living {
        if agent.turns.take(&attachment.key, Duration::ZERO).await.is_some() {
            idle.push(attachment);
        }
    }
    idle
}

/// What the kernel has of each; nothing of any, if it can't be read.
async fn presence_of(agent: &Agent, attachments: &[Attachment]) -> HashMap<AttachmentKey, NetnsPresence> {
    let netns = |attachment: &Attachment| attachment.links.as_ref().and_then(|links| links.netns);
    let asked = attachments.iter().map(|attachment| (attachment.key.clone(), netns(attachment))).collect();
    agent.network.presence(asked).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the kernel can't tell which namespaces are gone, so every attachment counts as in use");
        HashMap::new()
    })
}

/// The attachments whose pod is not among this node's pods, as the watch has them. A candidate costs live reads.
fn candidates(agent: &Agent, idle: &[Attachment]) -> Vec<Candidate<Identity>> {
    let unseen = |attachment: &&Attachment| {
        let pod = &attachment.pod;
        agent.view.cached_pod(&pod.namespace, &pod.name, &pod.uid).is_none()
    };
    idle.iter()
        .filter(unseen)
        .map(|attachment| Candidate {
            key: identity(attachment),
            pod: attachment.pod.clone(),
            seen: attachment.pod_seen,
        })
        .collect()
}

/// A Warning on each pod whose interface was moved to another namespace, once. An ending namespace looks the same for a moment, so it
/// takes two looks.
fn tell_moved(
    agent: &Agent,
    idle: &[Attachment],
    found: &HashMap<AttachmentKey, NetnsPresence>,
    told: &mut HashMap<AttachmentKey, bool>,
) {
    let moved = |attachment: &&Attachment| found.get(&attachment.key) == Some(&NetnsPresence::Moved);
    let now: Vec<&Attachment> = idle.iter().filter(moved).collect();
    told.retain(|key, _| now.iter().any(|attachment| attachment.key == *key));
    for attachment in now {
        let Some(told) = told.get_mut(&attachment.key) else {
            told.insert(attachment.key.clone(), false);
            continue;
        };
        if !std::mem::replace(told, true) {
            let sentence = decision::moved_sentence(attachment);
            tracing::warn!(key = %attachment.key, "{sentence}");
            agent.events.pod_warning(&attachment.pod, "InterfaceMoved", &sentence);
        }
    }
}

/// The pass would have freed too much: told in the log when it begins, and as an event that is counted.
fn stopped(agent: &Agent, breaker: Breaker, tripped: &mut Option<Breaker>) {
    agent.metrics.breaker.inc();
    let sentence = decision::stopped_sentence(&agent.args.node_name, breaker);
    agent.events.node_warning("SweepStopped", &sentence);
    if tripped.replace(breaker) != Some(breaker) {
        tracing::error!("{sentence}");
    }
}

/// Looks once more, alone with the attachment, and ends it as a DEL does.
async fn end(agent: &Arc<Agent>, seen: &Attachment, evidence: Evidence) {
    let key = &seen.key;
    let Some(_turn) = agent.turns.take(key, Duration::ZERO).await else { return };
    let Some(now) = agent.ledger.attachment(key).filter(|now| identity(now) == identity(seen)) else { return };
    if evidence == Evidence::NetnsGone
        && presence_of(agent, std::slice::from_ref(&now)).await.get(key) != Some(&NetnsPresence::NetnsGone)
    {
        return;
    }
    match agent.end(&now).await {
        // It is out of use, but its checkpoint could not be removed, as was said.
        Ok(false) => {}
        Ok(true) => {
            if evidence != Evidence::Del {
                agent.metrics.swept.inc();
            }
            tracing::info!(%key, pair = %now.pair, pod = %format!("{}/{}", now.pod.namespace, now.pod.name), "{evidence}");
        }
        Err(error) => {
            tracing::warn!(%key, %error, "an attachment could not be freed; it is tried again at the next interval");
        }
    }
}
