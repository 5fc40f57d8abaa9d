//! Frees attachments that nobody called DEL for: their namespace is gone, and the host's end of the link with it. Two looks apart, and a
//! pass that would free much stops. Also ends what DEL began and could not end. Called by run; frees nothing that has a link.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bobbin_addressing::{AttachmentKey, TwoLooks};
use bobbin_kernel::boot_time;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::ledger::{Attachment, Phase};

/// Rests older than any cool-down: a day is the longest that a pool may ask for.
const OLD_REST: Duration = Duration::from_hours(24);

/// How long a look may take before the loop counts as hanging.
const DEADLINE: Duration = Duration::from_mins(5);

/// Sweeps every `--sweep-interval` until `stop`.
pub async fn run(agent: &Arc<Agent>, stop: CancellationToken) {
    let mut looks = TwoLooks::new();
    let beat = agent.progress.register("sweep", DEADLINE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = beat.while_idle(tokio::time::sleep(agent.args.sweep_interval)) => {}
        }
        look(agent, &mut looks).await;
        agent.journal.prune_rests(boot_time().before(OLD_REST));
    }
}

/// One look at everything.
async fn look(agent: &Arc<Agent>, looks: &mut TwoLooks<AttachmentKey>) {
    // Before the links: what is added between the two reads is then no suspect.
    let all = agent.ledger.attachments();
    let Some(linked) = linked(agent).await else { return };
    let mut suspects = HashSet::new();
    // What a DEL has begun to end needs no second look: the DEL is the evidence.
    let (unfinished, rest): (Vec<&Attachment>, Vec<&Attachment>) =
        all.iter().partition(|attachment| attachment.phase == Phase::Deleting);
    for attachment in rest {
        if !linked.contains(&attachment.key) && is_idle(agent, &attachment.key).await {
            suspects.insert(attachment.key.clone());
        }
    }
    let verdict = looks.look(&suspects, all.len(), boot_time(), agent.args.sweep_interval.mul_f32(0.9));
    if let Some(breaker) = verdict.tripped {
        agent.metrics.breaker.inc();
        tracing::error!("sweep on node {}: {breaker}", agent.args.node_name);
        agent.events.node_warning("SweepStopped", &format!("sweep on node {}: {breaker}", agent.args.node_name));
    } else {
        agent.metrics.last_sweep.set(jiff::Timestamp::now().as_second());
    }
    let unfinished = unfinished.into_iter().map(|attachment| attachment.key.clone());
    let decided: Vec<AttachmentKey> = verdict.free.into_iter().chain(unfinished).collect();
    for attachment in all.iter().filter(|attachment| decided.contains(&attachment.key)) {
        free(agent, attachment).await;
    }
}

/// Looks once more, alone with the attachment, and ends it.
async fn free(agent: &Arc<Agent>, seen: &Attachment) {
    let key = &seen.key;
    let Some(_turn) = agent.turns.take(key, Duration::ZERO).await else { return };
    let Some(now) = agent.ledger.attachment(key).filter(|now| now.created_at == seen.created_at) else { return };
    let Some(linked) = linked(agent).await else { return };
    if linked.contains(key) && now.phase != Phase::Deleting {
        return;
    }
    match agent.end(&now).await {
        // It is out of use, but still written down, as was said.
        Ok(false) => {}
        Ok(true) if now.phase == Phase::Deleting => {
            tracing::info!(%key, pair = %now.pair, "ended what a DEL, or an ADD that failed, had begun to end");
        }
        Ok(true) => {
            agent.metrics.swept.inc();
            tracing::info!(%key, pair = %now.pair, pod = %format!("{}/{}", now.pod.namespace, now.pod.name), "freed an attachment whose link is gone and for which nobody called DEL");
        }
        Err(error) => tracing::warn!(%error, "the sweep tries again"),
    }
}

/// Whether no verb works on an attachment.
async fn is_idle(agent: &Agent, key: &AttachmentKey) -> bool {
    agent.turns.take(key, Duration::ZERO).await.is_some()
}

/// The attachments that have a link; `None`: the kernel could not tell, so nothing is known to be gone.
async fn linked(agent: &Agent) -> Option<HashSet<AttachmentKey>> {
    match agent.network.links().await {
        Ok(links) => Some(links.into_iter().map(|link| link.key).collect()),
        Err(error) => {
            tracing::warn!(%error, "the links can't be read, so nothing is freed");
            None
        }
    }
}
