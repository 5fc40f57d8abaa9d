//! GC: frees what the runtime does not list as valid: at once if its link is gone as well, else when a second GC does not list it either.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bobbin_addressing::AttachmentKey;
use bobbin_addressing::two_looks::Breaker;
use bobbin_cni_wire::{CniError, NetConf, code};
use bobbin_kernel::boot_time;

use super::TURN;
use crate::agent::Agent;
use crate::ledger::{Attachment, Phase};

/// Frees the unlisted. Attachments that began after the call are exempt: they can't be in its list.
///
/// # Errors
/// No list, the breaker stopped the pass, or something could not be ended; the rest is freed all the same.
pub async fn gc(agent: &Arc<Agent>, conf: &NetConf) -> Result<(), CniError> {
    let begun = jiff::Timestamp::now();
    let valid: HashSet<AttachmentKey> = conf
        .valid_attachments()?
        .iter()
        .map(|valid| AttachmentKey { container_id: valid.container_id.clone(), if_name: valid.if_name.clone() })
        .collect();
    let all = agent.ledger.attachments();
    let unlisted: Vec<&Attachment> =
        all.iter().filter(|attachment| is_old(attachment, begun) && !valid.contains(&attachment.key)).collect();
    let linked: HashSet<AttachmentKey> = agent
        .network
        .links()
        .await
        .map_err(|error| {
            CniError::new(
                code::KERNEL_REFUSED,
                format!("GC on node {} freed nothing: the links can't be read: {error}", agent.args.node_name),
            )
        })?
        .into_iter()
        .map(|link| link.key)
        .collect();
    let (alive, gone): (Vec<&Attachment>, Vec<&Attachment>) =
        unlisted.into_iter().partition(|attachment| linked.contains(&attachment.key));
    let mut free: Vec<Attachment> = gone.into_iter().cloned().collect();
    let suspects = alive.iter().map(|attachment| attachment.key.clone()).collect();
    if let Some(breaker) = Breaker::of(free.len(), all.len()) {
        return Err(stopped(agent, breaker));
    }
    let verdict = {
        let mut looks = agent.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        looks.look(&suspects, all.len(), boot_time(), Duration::ZERO)
    };
    if let Some(breaker) = verdict.tripped {
        return Err(stopped(agent, breaker));
    }
    free.extend(alive.into_iter().filter(|attachment| verdict.free.contains(&attachment.key)).cloned());
    let mut failed = Vec::new();
    for attachment in free {
        if let Err(why) = free_one(agent, &attachment).await {
            failed.push(why);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(CniError::new(code::TRY_AGAIN_LATER, failed.join("; ")))
}

/// Nothing was freed, for it would have been too much.
fn stopped(agent: &Agent, breaker: Breaker) -> CniError {
    agent.metrics.breaker.inc();
    CniError::new(code::TRY_AGAIN_LATER, format!("GC on node {}: {breaker}", agent.args.node_name))
}

/// Whether ADD had answered before the GC began. What a DEL has begun to end, the sweep ends.
fn is_old(attachment: &Attachment, begun: jiff::Timestamp) -> bool {
    attachment.phase == Phase::Live && attachment.created_at < begun
}

async fn free_one(agent: &Arc<Agent>, seen: &Attachment) -> Result<(), String> {
    let key = &seen.key;
    let Some(_turn) = agent.turns.take(key, TURN).await else { return Err(format!("{key} is being worked on")) };
    // A later ADD of the same key is another attachment.
    let Some(attachment) = agent.ledger.attachment(key).filter(|now| now.created_at == seen.created_at) else {
        return Ok(());
    };
    if !agent.end(&attachment).await.map_err(|error| error.to_string())? {
        return Err(format!("{key} is out of use, but still written down"));
    }
    agent.metrics.collected.inc();
    tracing::info!(%key, pair = %attachment.pair, "GC freed an attachment that the runtime does not list");
    Ok(())
}
