//! GC removes an attachment if two successive GC calls for the attachment's network do not list the attachment. GC keeps attachments of
//! other networks and of unknown networks.

mod decision;

use std::collections::HashSet;
use std::sync::Arc;

use bobbin_cni_wire::{CniError, NetConf, code};
use bobbin_datapath::boot_time;
use bobbin_ipam::AttachmentKey;
use bobbin_ipam::deletion_guard::Breaker;
use bobbin_messages::event::agent as event;

use super::LOCK_TIMEOUT;
use super::del::MANUAL_DEL;
use crate::agent::Agent;
use crate::state::Attachment;

pub use decision::UnlistedAttachments;

/// Removes the attachments that are missing from the list of this call and from the list of the network's previous GC call. An attachment
/// that is newer than this call stays, because the call's list can't contain it.
///
/// # Errors
/// If the call has no list of attachments, if the breaker tripped, or if GC could not remove some of the attachments.
pub async fn gc(agent: &Arc<Agent>, history: &UnlistedAttachments, conf: &NetConf) -> Result<(), CniError> {
    let begun = jiff::Timestamp::now();
    let valid: HashSet<AttachmentKey> = conf
        .valid_attachments()?
        .iter()
        .map(|valid| AttachmentKey { container_id: valid.container_id.clone(), if_name: valid.if_name.clone() })
        .collect();
    let all = agent.node_state.attachments();
    let unlisted = history
        .call(&conf.name, &all, &valid, begun, boot_time())
        .map_err(|breaker| report_trip(agent, &conf.name, breaker))?;
    let mut failed = Vec::new();
    for attachment in unlisted {
        if let Err(why) = remove(agent, attachment).await {
            failed.push(why);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(CniError::new(code::TRY_AGAIN_LATER, failed.join("; ")))
}

/// Reports that the breaker tripped, so GC removed nothing.
fn report_trip(agent: &Agent, network: &str, breaker: Breaker) -> CniError {
    let Breaker { would_delete, population } = breaker;
    let node = &agent.args.node_name;
    let sentence = format!(
        "GC of network {network:?} on node {node} removed nothing, because the container runtime did not list {would_delete} of {population} pod interfaces (attachments). The agent does not remove so many in one GC call. To find the containers that are gone, compare `crictl pods` on the node with `kubectl get ipassignments --field-selector spec.nodeName={node} -o custom-columns=ID:.spec.containerID,POD:.spec.podName`. Then, {MANUAL_DEL}"
    );
    agent.metrics.breaker_trips.inc();
    agent.events.on_node(&event::GC_STOPPED, &sentence);
    CniError::new(code::TRY_AGAIN_LATER, sentence)
}

async fn remove(agent: &Arc<Agent>, seen: &Attachment) -> Result<(), String> {
    let key = &seen.key;
    let Some(_lock) = agent.locks.lock(key, LOCK_TIMEOUT).await else {
        return Err(format!("another CNI call for {key} is still running"));
    };
    // A later ADD may have created another attachment with the same key. That attachment must stay.
    let Some(attachment) = agent.node_state.attachment(key).filter(|now| now.id() == seen.id()) else {
        return Ok(());
    };
    if !agent.end(&attachment).await.map_err(|error| error.to_string())? {
        return Err(format!(
            "the agent could not remove the checkpoint of {key}, so the attachment's address stays in use"
        ));
    }
    agent.metrics.gc_attachments_removed.inc();
    tracing::info!(%key, pair = %attachment.pair, "GC removed an attachment that the runtime does not list");
    Ok(())
}
