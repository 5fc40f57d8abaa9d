//! GC: frees what two calls for the same network do not list. Attachments of another network, or of none that is known, stay.

mod decision;

use std::collections::HashSet;
use std::sync::Arc;

use bobbin_cni_wire::{CniError, NetConf, code};
use bobbin_datapath::boot_time;
use bobbin_ipam::AttachmentKey;
use bobbin_ipam::deletion_guard::Breaker;

use super::LOCK_TIMEOUT;
use super::del::BY_HAND;
use crate::agent::Agent;
use crate::ledger::Attachment;

pub use decision::Unlisted;

/// Frees the unlisted attachments of the call's network. Those that began after the call are exempt: they can't be in its list.
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
    let unlisted = agent
        .unlisted
        .call(&conf.name, &all, &valid, begun, boot_time())
        .map_err(|breaker| stopped(agent, &conf.name, breaker))?;
    let mut failed = Vec::new();
    for attachment in unlisted {
        if let Err(why) = free_one(agent, attachment).await {
            failed.push(why);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(CniError::new(code::TRY_AGAIN_LATER, failed.join("; ")))
}

/// Nothing was freed, for it would have been too much.
fn stopped(agent: &Agent, network: &str, breaker: Breaker) -> CniError {
    let Breaker { would_delete, population } = breaker;
    let node = &agent.args.node_name;
    let sentence = format!(
        "GC of network {network:?} on node {node} freed nothing: the runtime listed all but {would_delete} of {population} attachments, and that is too many to free at once; compare `crictl pods` with `kubectl get ipassignments --field-selector spec.nodeName={node}`, and {BY_HAND}"
    );
    agent.metrics.breaker.inc();
    agent.events.node_warning("GcStopped", &sentence);
    CniError::new(code::TRY_AGAIN_LATER, sentence)
}

async fn free_one(agent: &Arc<Agent>, seen: &Attachment) -> Result<(), String> {
    let key = &seen.key;
    let Some(_turn) = agent.turns.take(key, LOCK_TIMEOUT).await else {
        return Err(format!("{key} is being worked on"));
    };
    // A later ADD of the same key is another attachment.
    let Some(attachment) = agent.ledger.attachment(key).filter(|now| now.created_at == seen.created_at) else {
        return Ok(());
    };
    if !agent.end(&attachment).await.map_err(|error| error.to_string())? {
        return Err(format!("{key} is out of use, but its checkpoint could not be removed, so its address stays held"));
    }
    agent.metrics.collected.inc();
    tracing::info!(%key, pair = %attachment.pair, "GC freed an attachment that the runtime does not list");
    Ok(())
}
