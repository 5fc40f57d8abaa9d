//! The conditions of a pool: what, where, why, what to do, each in one sentence.

use bobbin_api_client::shortened;
use bobbin_crds::pool::condition::{EXHAUSTED, READY, TERMINATING};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Counted, Inputs};

/// At most this many nodes are named.
const NAMED: usize = 5;
/// The API server takes messages of at most 32768 bytes; a screen takes less.
const LONGEST: usize = 1000;

struct Says {
    status: bool,
    reason: &'static str,
    message: String,
}

fn says(status: bool, reason: &'static str, message: impl Into<String>) -> Says {
    Says { status, reason, message: message.into() }
}

/// The condition of a type.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// All conditions. The time of one whose status is as before is as before.
pub(super) fn all(inputs: &Inputs<'_>, counted: &Counted, old: &[Condition]) -> Vec<Condition> {
    let mut conditions = vec![(READY, ready(inputs)), (EXHAUSTED, exhausted(inputs, counted))];
    if inputs.pool.metadata.deletion_timestamp.is_some() {
        conditions.push((TERMINATING, terminating(inputs, counted)));
    }
    let made = |(type_, says): (&str, Says)| {
        let status = if says.status { "True" } else { "False" };
        let since = find(old, type_).filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: says.reason.to_owned(),
            message: shortened(&says.message, LONGEST),
            last_transition_time: since.unwrap_or_else(|| inputs.now.clone()),
            observed_generation: inputs.pool.metadata.generation,
        }
    };
    let ours = conditions.into_iter().map(made);
    // Those of others are left alone.
    ours.chain(old.iter().filter(|old| ![READY, EXHAUSTED, TERMINATING].contains(&old.type_.as_str())).cloned())
        .collect()
}

fn ready(inputs: &Inputs<'_>) -> Says {
    let shape = match inputs.shape {
        Ok(shape) => shape,
        Err(why) => return says(false, "Invalid", format!("the pool can't be carved: {why}")),
    };
    if inputs.pool.metadata.deletion_timestamp.is_some() {
        return says(false, "Terminating", "the pool is being deleted and hands out no addresses: make another pool");
    }
    let any = shape.accepted.iter().any(|accepted| *accepted);
    let overlaps: Vec<String> = inputs.refused.iter().map(ToString::to_string).collect();
    let overlaps = overlaps.join("; ");
    if inputs.pool.spec.draining {
        return says(
            false,
            "Draining",
            "the pool is draining and hands out no new addresses: set spec.draining to false to use it again",
        );
    }
    match (any, overlaps.is_empty()) {
        // The entries that are accepted go on serving: an append that can't be served must not stop the pool's pods.
        (true, false) => says(true, "Overlaps", format!("the pool serves without some of its subnets: {overlaps}")),
        (false, false) => says(false, "Overlaps", overlaps),
        (true, true) => says(true, "Carved", "blocks of the pool can be claimed"),
        (false, true) => says(false, "Pending", "the pool's subnets are being compared with those of the other pools"),
    }
}

fn exhausted(inputs: &Inputs<'_>, counted: &Counted) -> Says {
    if counted.total == 0 || counted.free_blocks > 0 {
        return says(
            false,
            "FreeBlocks",
            if counted.total == 0 { "the pool has no blocks yet" } else { "the pool has free blocks" },
        );
    }
    if counted.free_in_claimed {
        return says(false, "FreeAddresses", "all blocks are claimed, and some have free addresses");
    }
    let pool = inputs.pool.metadata.name.as_deref().unwrap_or_default();
    let total = counted.total;
    says(
        true,
        "NoFreeAddress",
        format!(
            "all {total} addresses of pool {pool:?} are in use or reserved: append a subnet to its spec.subnets, or delete pods that use it"
        ),
    )
}

fn terminating(inputs: &Inputs<'_>, counted: &Counted) -> Says {
    let blocks = inputs.view.blocks.iter().filter(|block| !block.is_free()).count();
    if counted.used == 0 && blocks == 0 {
        return says(true, "Empty", "no address of the pool is in use: it goes now");
    }
    let holders = inputs.holders;
    let mut nodes: Vec<String> = holders.iter().take(NAMED).map(|(node, count)| format!("{node} ({count})")).collect();
    if holders.len() > NAMED {
        nodes.push(format!("{} more", holders.len() - NAMED));
    }
    let nodes = nodes.join(", ");
    says(
        true,
        "InUse",
        format!(
            "the pool waits for {} addresses in {blocks} claimed blocks on {} nodes: {nodes}; it goes when the pods that use them are deleted",
            counted.used,
            holders.len()
        ),
    )
}
