//! Fills the ledger at start, out of the journal and the kernel: the union of both, for missing evidence means "in use". It asks
//! the API server nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bobbin_crds::DEFAULT_COOLDOWN;
use bobbin_datapath::ObservedLink;
use bobbin_ipam::{AttachmentKey, IpPair, Reserved};
use jiff::Timestamp;

use crate::blocks::read::cooling_since;
use crate::journal::{Journal, Kept};
use crate::ledger::{Arrival, Attachment, BlockEvent, Ledger, Phase, PodRef, SavedBlock};
use crate::watch::ClusterView;

/// Enters the blocks and attachments that are on the node. Returns the attachments. `trusted`: the agent was away for so short a time
/// that blocks which served may serve before the API server has spoken.
pub fn restore(
    ledger: &Ledger,
    journal: &Journal,
    view: &ClusterView,
    links: Vec<ObservedLink>,
    boot_id: &str,
    trusted: bool,
) -> Vec<Attachment> {
    let Kept { attachments, unreadable, blocks, cooling, passed_over } = journal.load();
    let now = bobbin_datapath::boot_time();
    for saved in blocks {
        let proof = saved.proof();
        let SavedBlock { block, state, .. } = saved;
        let Some(state) = state.restored(trusted) else { continue };
        let pool = view.pool(&block.pool);
        let reserved = pool.as_ref().and_then(|pool| Reserved::parse(&pool.spec.reserved).ok());
        let cooldown = pool.map_or(DEFAULT_COOLDOWN, |pool| pool.spec.cooldown());
        let arrival = Arrival {
            cooling_since: cooling_since(block.free_since, cooldown, Timestamp::now(), now),
            held: block,
            reserved: reserved.unwrap_or_default(),
            proof,
            now,
            not_before: now,
            // The checkpoint does not say, and an address that was in use must cool.
            was_used: true,
        };
        ledger.restore_block(arrival, state);
    }
    ledger.rest(&cooling);
    for record in passed_over {
        ledger.pass_over(record);
    }
    let all = union(attachments, links, boot_id, Timestamp::now());
    for (attachment, source) in &all {
        ledger.restore(attachment.clone());
        if *source == Source::Kernel {
            tracing::warn!(key = %attachment.key, pair = %attachment.pair, "an attachment has a link but no checkpoint with its addresses; it is written again");
            if let Err(error) = journal.keep(attachment) {
                tracing::error!(key = %attachment.key, %error, "an attachment could not be written down");
            }
        }
    }
    // A checkpoint that can't be read and belongs to no link still counts: with no address, until two looks agree that it is gone.
    let mut nameless: Vec<(Attachment, Source)> = Vec::new();
    for key in unreadable.iter().filter_map(|path| key_of(path)).filter(|key| ledger.attachment(key).is_none()) {
        tracing::error!(%key, "the checkpoint of an attachment can't be read and no link has its key; none of its records is deleted until it is found gone");
        // An empty UID: there is no address to record.
        let attachment = of_kernel(key, IpPair::default(), Some(String::new()), boot_id, Timestamp::now());
        ledger.restore(attachment.clone());
        nameless.push((attachment, Source::Journal));
    }
    // A lost block is kept for its residents only; the last of them may have ended while no agent ran.
    for block in ledger.blocks().into_iter().filter(|block| block.residents == 0) {
        ledger.on(&block.held.name, BlockEvent::Vacated);
    }
    let all = all.into_iter().chain(nameless);
    // What the ledger made of them: pool and block come from the blocks it has.
    all.map(|(attachment, _)| ledger.attachment(&attachment.key).unwrap_or(attachment)).collect()
}

/// Where an attachment was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// In the journal, and perhaps in the kernel.
    Journal,
    /// In the kernel alone, or with other addresses there.
    Kernel,
}

/// All attachments that the journal or the kernel has. Where they differ about an address, the kernel is right.
fn union(kept: Vec<Attachment>, links: Vec<ObservedLink>, boot_id: &str, now: Timestamp) -> Vec<(Attachment, Source)> {
    let mut seen: HashMap<AttachmentKey, ObservedLink> =
        links.into_iter().map(|link| (link.key.clone(), link)).collect();
    let mut all: BTreeMap<AttachmentKey, (Attachment, Source)> = BTreeMap::new();
    for mut attachment in kept {
        let routed = seen.remove(&attachment.key).map(|link| link.pair).unwrap_or_default();
        let pair = IpPair { ipv4: routed.ipv4.or(attachment.pair.ipv4), ipv6: routed.ipv6.or(attachment.pair.ipv6) };
        let source = if pair == attachment.pair { Source::Journal } else { Source::Kernel };
        attachment.pair = pair;
        all.insert(attachment.key.clone(), (attachment, source));
    }
    for (key, link) in seen {
        let attachment = of_kernel(key.clone(), link.pair, None, boot_id, now);
        all.insert(key, (attachment, Source::Kernel));
    }
    all.into_values().collect()
}

/// What is known of an attachment that no record tells of.
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
        phase: Phase::Live,
        netns: None,
        pod_seen: false,
        network: None,
        links: None,
    }
}

/// The attachment that a file of the journal is of: `<containerID>-<ifName>.json`.
fn key_of(path: &Path) -> Option<AttachmentKey> {
    let (container_id, if_name) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    Some(AttachmentKey::new(container_id, if_name))
}

#[cfg(test)]
mod tests;
