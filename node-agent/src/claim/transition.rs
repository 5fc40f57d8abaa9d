//! From a block as read to a block as wanted, and whose it is. Pure.

use std::collections::HashSet;
use std::time::Duration;

use bobbin_addressing::{BlockRange, BootTime, hash};
use bobbin_crds::{AddressBlock, FINALIZER};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::ledger::HeldBlock;
use crate::watch::NodeFacts;

/// Whose a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody's, and to be had.
    Free,
    /// This Node's, by name and UID.
    Ours,
    /// It names this node, but an earlier Node of that name.
    EarlierSelf,
    /// Another node's, or about to be deleted.
    Others,
}

/// Whose a block is, as read.
pub(crate) fn standing(block: &AddressBlock, node: &NodeFacts) -> Standing {
    match block.spec.node_name.as_deref() {
        Some(name) if name == node.name => {
            if block.spec.node_uid.as_deref() == Some(&node.uid) {
                Standing::Ours
            } else {
                Standing::EarlierSelf
            }
        }
        Some(_) => Standing::Others,
        None if block.metadata.deletion_timestamp.is_some() => Standing::Others,
        None => Standing::Free,
    }
}

/// The block as this Node's. With the finalizer: from now on its addresses may be in use. `freeSince` stays: they may still rest.
pub(super) fn claimed(mut block: AddressBlock, node: &NodeFacts) -> AddressBlock {
    block.spec.node_name = Some(node.name.clone());
    block.spec.node_uid = Some(node.uid.clone());
    block.spec.node_ipv4 = node.ipv4.map(|address| address.to_string());
    block.spec.node_ipv6 = node.ipv6.map(|address| address.to_string());
    let finalizers = block.finalizers_mut();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    block
}

/// The claim on a block that was not read, as a JSON patch: only if the block is nobody's and has no finalizer. To the API server the test
/// for null holds where there is no such field. It applies the patch to one version of the block, and again if that has changed.
pub(super) fn claim_patch(node: &NodeFacts) -> Value {
    let mut patch = vec![
        json!({"op": "test", "path": "/spec/nodeName", "value": null}),
        json!({"op": "test", "path": "/metadata/finalizers", "value": null}),
        json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}),
        json!({"op": "add", "path": "/spec/nodeName", "value": node.name}),
        json!({"op": "add", "path": "/spec/nodeUID", "value": node.uid}),
    ];
    let addresses =
        [("nodeIPv4", node.ipv4.map(|ip| ip.to_string())), ("nodeIPv6", node.ipv6.map(|ip| ip.to_string()))];
    for (field, address) in addresses {
        if let Some(address) = address {
            patch.push(json!({"op": "add", "path": format!("/spec/{field}"), "value": address}));
        }
    }
    Value::Array(patch)
}

/// The block as nobody's. The finalizer stays: taking it off is the operator's.
pub(super) fn released(mut block: AddressBlock, now: Timestamp) -> AddressBlock {
    block.spec.node_name = None;
    block.spec.node_uid = None;
    block.spec.node_ipv4 = None;
    block.spec.node_ipv6 = None;
    block.spec.free_since = Some(MicroTime(now));
    block
}

/// How long the block has been free; `None`: it never was another's.
fn free_for(since: Option<&MicroTime>, now: Timestamp) -> Option<Duration> {
    // A time to come is another machine's clock: the block is free since just now.
    since.map(|since| Duration::try_from(now.duration_since(since.0)).unwrap_or_default())
}

/// Whether the addresses of a block have rested long enough.
pub(super) fn is_rested(block: &AddressBlock, now: Timestamp, cooldown_seconds: i64) -> bool {
    let cooldown = Duration::from_secs(cooldown_seconds.max(0).unsigned_abs());
    free_for(block.spec.free_since.as_ref(), now).is_none_or(|free| free >= cooldown)
}

/// The block to claim of those listed: rested ones by hash of (node, block), then the one that rests longest.
pub(super) fn best_of(
    listed: Vec<AddressBlock>,
    passed: &HashSet<String>,
    node: &str,
    seed: u64,
    now: Timestamp,
    cooldown_seconds: i64,
) -> Option<AddressBlock> {
    let to_be_had = listed.into_iter().filter(|block| {
        block.spec.node_name.is_none()
            && block.metadata.deletion_timestamp.is_none()
            && !passed.contains(&block.name_any())
    });
    to_be_had.min_by_key(|block| {
        let shuffled = hash::stable(&[node.as_bytes(), block.name_any().as_bytes(), &seed.to_le_bytes()]);
        let rests = !is_rested(block, now, cooldown_seconds);
        let since = rests.then(|| block.spec.free_since.as_ref().map(|since| since.0.as_microsecond())).flatten();
        (rests, since, shuffled)
    })
}

/// The block as the ledger keeps it.
///
/// # Errors
/// A sentence, if its range can't be read: the schema does not let that happen.
pub(crate) fn held(block: &AddressBlock) -> Result<HeldBlock, String> {
    let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref())
        .map_err(|error| format!("block {} can't be read: {error}", block.name_any()))?;
    Ok(HeldBlock {
        name: block.name_any(),
        uid: block.metadata.uid.clone().unwrap_or_default(),
        resource_version: block.metadata.resource_version.clone().unwrap_or_default(),
        pool: block.spec.pool_name.clone(),
        index: block.spec.index,
        range,
        free_since: block.spec.free_since.as_ref().map(|since| since.0),
    })
}

/// Since when, in boot time, the addresses of a claimed block rest; `None` when they have rested enough.
pub(crate) fn resting_since(held: &HeldBlock, cooldown: Duration, now: Timestamp, boot: BootTime) -> Option<BootTime> {
    let since = held.free_since.map(MicroTime);
    free_for(since.as_ref(), now).filter(|free| *free < cooldown).map(|free| boot.before(free))
}

#[cfg(test)]
mod tests;
