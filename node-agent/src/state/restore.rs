//! Fills the node's state from the checkpoint and the kernel when the agent starts. An address that is in the checkpoint or in the kernel
//! counts as in use. The restore does not read from the API server.

use std::collections::{BTreeMap, HashMap};

use bobbin_datapath::ObservedLink;
use bobbin_ipam::{AttachmentKey, IpPair};
use jiff::Timestamp;

use crate::blocks::claim::reserved_of;
use crate::blocks::read::cooling_since;
use crate::cluster::{ClusterCache, cooldown_of};
use crate::state::checkpoint::{Checkpoint, CheckpointContents, key_of};
use crate::state::{Attachment, AttachmentPhase, BlockEvent, NewBlock, NodeState, PodRef};

/// Restores the blocks and attachments, and returns the attachments. If `trusted` is true, the agent was down only briefly. Blocks in
/// service then stay in service, although the API server has not confirmed them again.
pub fn restore(
    node_state: &NodeState,
    checkpoint: &Checkpoint,
    cluster: &ClusterCache,
    links: Vec<ObservedLink>,
    boot_id: &str,
    trusted: bool,
) -> Vec<Attachment> {
    let CheckpointContents { attachments, unreadable, blocks, cooling, conflicts } = checkpoint.load();
    let now = bobbin_datapath::boot_time();
    for saved in blocks {
        let proof = saved.proof();
        let Some((state, since)) = saved.restored(trusted, now) else { continue };
        let block = saved.block;
        let pool = cluster.pool(&block.pool);
        let reserved = pool.as_ref().and_then(|pool| reserved_of(pool).ok());
        let cooldown = cooldown_of(pool.as_deref());
        let new = NewBlock {
            cooling_since: cooling_since(block.free_since, cooldown, Timestamp::now(), now),
            held: block,
            reserved: reserved.unwrap_or_default(),
            proof,
            now,
            not_before: now,
            // The checkpoint does not say whether the block's addresses were in use. Assume that they were, so that they cool down.
            was_used: true,
        };
        node_state.restore_block(new, state, since);
    }
    node_state.cool(&cooling);
    for conflict in conflicts {
        node_state.exclude(conflict);
    }
    let all = union(attachments, links, boot_id, Timestamp::now());
    for (attachment, source) in &all {
        node_state.restore_attachment(attachment.clone());
        if *source == Source::Kernel {
            tracing::warn!(key = %attachment.key, pair = %attachment.pair, "an attachment has no checkpoint, or the checkpoint's addresses differ from the routes of the attachment's host link. The agent writes the checkpoint again, with the addresses from the kernel");
            if let Err(error) = checkpoint.keep(attachment) {
                tracing::error!(key = %attachment.key, %error, "the agent could not write the checkpoint of an attachment. After a restart, the agent can still restore the attachment from the attachment's host link");
            }
        }
    }
    // If an attachment's file is unreadable and no host link has the attachment's key, add the attachment without an address. Such an
    // attachment stays until two checks find that its network namespace or its pod no longer exists.
    let mut nameless: Vec<(Attachment, Source)> = Vec::new();
    for key in unreadable.iter().filter_map(|path| key_of(path)).filter(|key| node_state.attachment(key).is_none()) {
        tracing::error!(%key, "the agent can't read the checkpoint of an attachment and finds no host link of the attachment. The agent keeps the attachment's IPAssignments as long as the attachment's network namespace or pod exists");
        // The empty UID marks the IPAssignment as confirmed. With `None` instead, the metrics would count the attachment as waiting for a
        // confirmation, although an attachment without an address gets no IPAssignment.
        let attachment = of_kernel(key, IpPair::default(), Some(String::new()), boot_id, Timestamp::now());
        node_state.restore_attachment(attachment.clone());
        nameless.push((attachment, Source::Checkpoint));
    }
    // Forget each lost block that has no attachments any more. The block's last attachment may have ended while no agent was running.
    for block in node_state.blocks().into_iter().filter(|block| block.residents == 0) {
        node_state.on(&block.held.name, BlockEvent::Vacated);
    }
    let all = all.into_iter().chain(nameless);
    // The node's state has filled in the pool and the block of each attachment.
    all.map(|(attachment, _)| node_state.attachment(&attachment.key).unwrap_or(attachment)).collect()
}

/// The place where the starting agent found an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The attachment is in the checkpoint, and perhaps in the kernel.
    Checkpoint,
    /// The attachment is only in the kernel, or its addresses in the kernel differ from those in the checkpoint.
    Kernel,
}

/// All attachments of the checkpoint and the kernel. If an attachment has an address in the kernel, the kernel's address replaces the
/// checkpoint's address of the same IP family.
fn union(kept: Vec<Attachment>, links: Vec<ObservedLink>, boot_id: &str, now: Timestamp) -> Vec<(Attachment, Source)> {
    let mut seen: HashMap<AttachmentKey, ObservedLink> =
        links.into_iter().map(|link| (link.key.clone(), link)).collect();
    let mut all: BTreeMap<AttachmentKey, (Attachment, Source)> = BTreeMap::new();
    for mut attachment in kept {
        let routed = seen.remove(&attachment.key).map(|link| link.pair).unwrap_or_default();
        let pair = IpPair { ipv4: routed.ipv4.or(attachment.pair.ipv4), ipv6: routed.ipv6.or(attachment.pair.ipv6) };
        let source = if pair == attachment.pair { Source::Checkpoint } else { Source::Kernel };
        attachment.pair = pair;
        all.insert(attachment.key.clone(), (attachment, source));
    }
    for (key, link) in seen {
        let attachment = of_kernel(key.clone(), link.pair, None, boot_id, now);
        all.insert(key, (attachment, Source::Kernel));
    }
    all.into_values().collect()
}

/// Creates an attachment that has no readable checkpoint.
fn of_kernel(
    key: AttachmentKey,
    pair: IpPair,
    assignment_uid: Option<String>,
    boot_id: &str,
    now: Timestamp,
) -> Attachment {
    Attachment {
        key,
        pair,
        block: String::new(),
        pool: String::new(),
        pod: PodRef::default(),
        created_at: now,
        boot_id: boot_id.to_owned(),
        assignment_uid,
        phase: AttachmentPhase::Live,
        netns: None,
        pod_seen: false,
        network: None,
        links: None,
    }
}

#[cfg(test)]
mod tests;
