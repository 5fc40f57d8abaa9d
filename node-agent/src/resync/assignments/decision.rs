//! What own records and living attachments say of each other. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bobbin_ipam::{AttachmentKey, BlockRange};

use crate::assignments::{AssignmentInfo, assignment_name};
use crate::state::Attachment;

/// A record, as far as freeing it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeenRecord {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub key: AttachmentKey,
    /// Its UID.
    pub uid: String,
}

impl SeenRecord {
    pub fn of(record: &AssignmentInfo) -> SeenRecord {
        SeenRecord { name: record.name.clone(), key: record.key.clone(), uid: record.uid.clone() }
    }
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finding<'a> {
    /// The record is of another boot of the node, and its attachment did not live on: it is gone for certain.
    OtherBoot(&'a AssignmentInfo),
    /// Nothing on the node has the record's address: in use, unless its pod is gone.
    NobodyLives(&'a AssignmentInfo),
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
pub(crate) fn judge<'a>(
    records: &'a [AssignmentInfo],
    living: &[Attachment],
    blocks: &BTreeMap<String, BlockRange>,
    boot_id: &str,
) -> Vec<Finding<'a>> {
    let by_key: HashMap<&AttachmentKey, &Attachment> =
        living.iter().map(|attachment| (&attachment.key, attachment)).collect();
    let mut recorded: HashMap<AttachmentKey, String> = HashMap::new();
    let mut findings = Vec::new();
    for record in records {
        if !record.readable {
            // It says no more than its name, which is its address.
            let mut of_it = living.iter().filter(|each| assignment_name(each.pair).as_deref() == Some(&record.name));
            match of_it.next() {
                Some(attachment) => drop(recorded.insert(attachment.key.clone(), record.name.clone())),
                None => findings.push(Finding::NobodyLives(record)),
            }
            continue;
        }
        let (key, name) = (record.key.clone(), record.name.clone());
        let lives =
            by_key.get(&key).is_some_and(|attachment| assignment_name(attachment.pair).as_deref() == Some(&name));
        if lives {
            recorded.insert(key, name);
        } else if record.boot_id == boot_id {
            findings.push(Finding::NobodyLives(record));
        } else {
            findings.push(Finding::OtherBoot(record));
            continue;
        }
        if !is_of_own_block(record, blocks) {
            findings.push(Finding::Void { name: record.name.clone(), block: record.block_name.clone() });
        }
    }
    // Only an attachment whose ADD was answered can lack a record: the others are on their way.
    let unrecorded =
        living.iter().filter(|attachment| attachment.needs_record() && !recorded.contains_key(&attachment.key));
    findings.extend(unrecorded.map(|attachment| Finding::Unrecorded(Box::new(attachment.clone()))));
    findings
}

fn is_of_own_block(record: &AssignmentInfo, blocks: &BTreeMap<String, BlockRange>) -> bool {
    let addresses: Vec<IpAddr> = record.addresses().collect();
    blocks
        .get(&record.block_name)
        .is_some_and(|range| addresses.iter().all(|address| range.offset_of(*address).is_some()))
}

#[cfg(test)]
mod tests;
