//! Handles the confirmations of assignments for which no ADD is waiting any more.

use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{backoff, jittered};
use bobbin_datapath::boot_time;
use bobbin_messages::event::agent as event;
use tokio::sync::mpsc;

use crate::agent::{Agent, DuplicateOutcome};
use crate::assignments::{Confirmation, LateConfirmation, assignment_name};
use crate::blocks::api_calls::BlockApi;
use crate::state::{Attachment, AttachmentPhase};

/// How long a handler waits for the attachment's lock, which a running ADD may hold. If the handler gives up, the agent does not learn the
/// assignment's UID. The attachment's DEL must then read the assignment before it can delete it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a handler waits for the attachment's lock before it ends an attachment with a duplicate address. If the handler gives up, the
/// next resync handles the duplicate.
const DUPLICATE_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The first and the longest pause between two reads of the block of a duplicate address.
const BLOCK_READ_BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// Handles late confirmations until the agent stops. Each confirmation has its own task, so a slow call to the API server delays no other
/// confirmation.
pub async fn run(agent: Arc<Agent>, blocks: BlockApi, mut confirmations: mpsc::UnboundedReceiver<LateConfirmation>) {
    while let Some(confirmation) = confirmations.recv().await {
        tokio::spawn(handle(Arc::clone(&agent), blocks.clone(), confirmation));
    }
}

async fn handle(agent: Arc<Agent>, blocks: BlockApi, late: LateConfirmation) {
    let LateConfirmation { key, pair, confirmation } = late;
    // `living` returns `None` if the agent has ended the attachment or is ending it. In both cases `Agent::end` deletes the assignment, so
    // this handler has nothing to do.
    let same = |attachment: &Attachment| attachment.pair == pair && attachment.phase != AttachmentPhase::Deleting;
    let living = || agent.node_state.attachment(&key).filter(same);
    match confirmation {
        Confirmation::Created { uid } => {
            // Wait for the attachment's lock, because the ADD may still be saving the attachment.
            let Some(_lock) = agent.locks.lock(&key, LOCK_TIMEOUT).await else { return };
            if living().is_some() {
                agent.update(&key, |attachment| attachment.assignment_uid = Some(uid));
            }
        }
        Confirmation::Taken { by, node, holder, uid } if node == agent.args.node_name => {
            let Some(attachment) = living() else { return };
            if agent.node_state.attachment(&holder).is_some_and(|other| other.pair == pair) {
                if agent.found_duplicate(pair, &by) {
                    agent.report_duplicate(&attachment, &by, DuplicateOutcome::SameNode);
                }
                return;
            }
            tracing::info!(%pair, %key, by, "the agent replaces the assignment of an ended attachment of this node");
            if let Some(name) = assignment_name(pair) {
                drop(agent.assignment_writer.delete(&name, &holder, Some(uid)));
                agent.assignment_writer.recreate(&attachment);
            }
        }
        Confirmation::Taken { by, node, .. } => {
            if let Some(left) = agent.freshness.quiet_time_left(boot_time()) {
                // After a restore of etcd, this assignment may belong to an ended attachment of another node. That node deletes the
                // assignment during the quiet time, and may assign the address to another pod afterwards. So keep this node's attachment,
                // and retry often: this node must create its assignment before the other node assigns the address.
                tracing::debug!(%pair, %key, by, "after an API outage, an assignment gives an address of this node's attachment to another attachment. The agent tries to create its own assignment again during the quiet time");
                tokio::time::sleep(jittered(left.min(agent.freshness.times().create_retry()))).await;
                // If another write for the address is pending, the confirmation of that write continues the retries.
                let due = living().filter(Attachment::needs_assignment);
                if let Some(attachment) = due.filter(|attachment| !agent.assignment_writer.busy_with(attachment.pair)) {
                    agent.assignment_writer.recreate(&attachment);
                }
                return;
            }
            let Some(attachment) = living() else { return };
            // Call `found_duplicate` before reading the block. The block's proof may be wrong, and `found_duplicate` invalidates the proof,
            // so that no ADD relies on the proof during the read.
            let is_new = agent.found_duplicate(pair, &by);
            let mut attempt = 0;
            let block = loop {
                match blocks.get(&attachment.block).await {
                    Ok(block) => break block,
                    Err(error) => {
                        tracing::warn!(%pair, %key, by, %error, "an attachment of this node has an address, but the IPAssignment of the address names another attachment. The agent does not know which node owns the block of the address, because it could not read the block");
                    }
                }
                // The resync checks the conflicting assignment again every minute, and each check may start another handler. So only the
                // handler that found the conflict first repeats the read of the block.
                if !is_new || living().is_none() {
                    return;
                }
                tokio::time::sleep(backoff(attempt, BLOCK_READ_BACKOFF[0], BLOCK_READ_BACKOFF[1])).await;
                attempt += 1;
            };
            if block.node_name.as_deref() != Some(node.as_str()) {
                // The assignment is void, because the node that it names does not own the block. Each recheck by the resync finds the void
                // assignment again, so only the handler that found it first reports it.
                if is_new {
                    agent.report_duplicate(&attachment, &by, DuplicateOutcome::Void);
                }
                return;
            }
            let Some(_lock) = agent.locks.lock(&key, DUPLICATE_LOCK_TIMEOUT).await else { return };
            let Some(attachment) = living() else { return };
            match agent.end(&attachment).await {
                Ok(_) => agent.report_duplicate(&attachment, &by, DuplicateOutcome::Ended),
                Err(error) => {
                    tracing::error!(%error, "the agent could not remove an attachment whose address belongs to another node; the agent tries again");
                }
            }
        }
        Confirmation::Refused(why) => {
            if living().is_none() {
                return;
            }
            let sentence = format!(
                "the API server refused the IPAssignment of address {pair} for attachment {key} on node {}: {why}. The pod of the attachment keeps the address. Check ClusterRole bobbin-agent and the admission policies",
                agent.args.node_name
            );
            tracing::error!("{sentence}");
            agent.events.on_node(&event::ASSIGNMENT_REFUSED, &sentence);
        }
        Confirmation::Denied(why) => {
            if living().is_none() {
                return;
            }
            let sentence = format!(
                "an admission policy denied the IPAssignment of address {pair} for attachment {key}: {why}. The pod of the attachment keeps the address. The agent tries again at least every 30 s to create the IPAssignment. Check the admission policies, and whether ConfigMap bobbin-denied-nodes has an entry for node {}",
                agent.args.node_name
            );
            tracing::error!("{sentence}");
            agent.events.on_node(&event::ASSIGNMENT_REFUSED, &sentence);
        }
    }
}
