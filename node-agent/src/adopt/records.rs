//! What own records and living attachments say of each other. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bobbin_addressing::{AttachmentKey, BlockRange};
use bobbin_crds::IPAssignment;
use kube::ResourceExt;

use crate::ledger::{Attachment, Phase};
use crate::record::record_name;

/// A record, as far as freeing it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Seen {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub key: AttachmentKey,
    /// Its UID.
    pub uid: String,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finding {
    /// The record is of another boot of the node, and its attachment did not live on: it is gone for certain.
    OtherBoot(Seen),
    /// Nothing on the node has the record's address. Look twice.
    NobodyLives(Seen),
    /// An attachment lives and has no record.
    Unrecorded(Box<Attachment>),
    /// The record says that its address is of a block that this node does not own.
    Void {
        /// Its name.
        name: String,
        /// The block that it names.
        block: String,
    },
}

/// Compares. `records` were listed before `living` was read.
pub(super) fn judge(
    records: &[IPAssignment],
    living: &[Attachment],
    blocks: &BTreeMap<String, BlockRange>,
    boot_id: &str,
) -> Vec<Finding> {
    let by_key: HashMap<&AttachmentKey, &Attachment> =
        living.iter().map(|attachment| (&attachment.key, attachment)).collect();
    let mut recorded: HashMap<AttachmentKey, String> = HashMap::new();
    let mut findings = Vec::new();
    for record in records {
        let key = AttachmentKey::new(&record.spec.container_id, &record.spec.if_name);
        let name = record.name_any();
        let seen = Seen { name: name.clone(), key: key.clone(), uid: record.metadata.uid.clone().unwrap_or_default() };
        let lives = by_key.get(&key).is_some_and(|attachment| record_name(attachment.pair).as_deref() == Some(&name));
        if lives {
            recorded.insert(key, name);
        } else if record.spec.boot_id == boot_id {
            findings.push(Finding::NobodyLives(seen));
        } else {
            findings.push(Finding::OtherBoot(seen));
            continue;
        }
        if !is_of_own_block(record, blocks) {
            findings.push(Finding::Void { name: record.name_any(), block: record.spec.block_name.clone() });
        }
    }
    // Only what had its record confirmed, or ADD answered, can lack one: the others are on their way.
    let unrecorded =
        living.iter().filter(|attachment| attachment.phase == Phase::Live && !recorded.contains_key(&attachment.key));
    findings.extend(unrecorded.map(|attachment| Finding::Unrecorded(Box::new(attachment.clone()))));
    findings
}

fn is_of_own_block(record: &IPAssignment, blocks: &BTreeMap<String, BlockRange>) -> bool {
    let addresses = [&record.spec.ipv4, &record.spec.ipv6].into_iter().flatten();
    let parsed: Vec<IpAddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    blocks
        .get(&record.spec.block_name)
        .is_some_and(|range| parsed.iter().all(|address| range.offset_of(*address).is_some()))
}

#[cfg(test)]
mod tests;
