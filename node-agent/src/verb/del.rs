//! DEL: the attachment ends. Repeated, late, or for something that nobody knows: success.

use std::sync::Arc;

use bobbin_addressing::{AttachmentKey, Pair};
use bobbin_cni_wire::{CniError, code};

use super::{TURN, busy};
use crate::agent::Agent;

/// Ends the attachment with that very container ID and interface, and no other.
///
/// # Errors
/// The kernel did not take the address out of use, so it stays held: code 11, the runtime tries again. (No text may say that something
/// does not exist: containerd would take that for success.)
pub async fn del(agent: &Arc<Agent>, key: &AttachmentKey) -> Result<(), CniError> {
    let _turn = agent.turns.take_over(key, TURN).await.ok_or_else(|| busy(key))?;
    let ended = match agent.ledger.attachment(key) {
        Some(attachment) => agent.end(&attachment).await.map_err(|error| error.to_string()).map(|ended| {
            if ended {
                let pod = format!("{}/{}", attachment.pod.namespace, attachment.pod.name);
                tracing::info!(pair = %attachment.pair, pod, "removed");
            }
        }),
        // Nobody's address is freed by it; but a link that bears its name goes.
        None => agent.network.detach(key, Pair { ipv4: None, ipv6: None }).await.map_err(|error| error.to_string()),
    };
    ended.map_err(|why| CniError::new(code::TRY_AGAIN_LATER, harmless(&why)))
}

/// The kernel's words without those that containerd takes for success.
fn harmless(why: &str) -> String {
    let why = why.replace("No such file or directory", "ENOENT").replace("no such file or directory", "ENOENT");
    why.replace("not found", "missing").replace("Not found", "Missing")
}
