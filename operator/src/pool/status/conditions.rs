//! The conditions of a pool. Each message says what is wrong, why, and what to do. Pure.

use bobbin_api_client::{list_names, shortened};
use bobbin_crds::name;
use bobbin_crds::pool::MAX_NODE_ADDRESSES;
use bobbin_crds::pool::condition::{
    ACCEPTED, ADDRESS_CONFLICT, BLOCKS_EXHAUSTED, EXHAUSTED, MISCONFIGURED, READY, TERMINATING,
};
use bobbin_ipam::overlap::{NODE_ADDRESS, SERVICE_RANGE};
use bobbin_ipam::pool_shape::ShapeError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

mod spec_problems;

use super::{Counts, Inputs};
use crate::cache::{BlockInfo, NodeAddress, Sighting};

/// The reason of the condition `Ready` while another object uses addresses of a subnet.
const OVERLAPS: &str = "Overlaps";
/// The types of the operator's own conditions.
const OWN: [&str; 7] = [READY, ACCEPTED, BLOCKS_EXHAUSTED, EXHAUSTED, ADDRESS_CONFLICT, MISCONFIGURED, TERMINATING];
/// The maximum number of nodes that a message names.
const MAX_NAMED_NODES: usize = 5;
/// The maximum length of a message, so that it fits on a screen. The API server would accept 32768 bytes.
const MAX_MESSAGE_BYTES: usize = 1000;

struct State {
    /// `None` stands for the status `Unknown`.
    status: Option<bool>,
    reason: &'static str,
    message: String,
}

fn state(status: impl Into<Option<bool>>, reason: &'static str, message: impl Into<String>) -> State {
    State { status: status.into(), reason, message: message.into() }
}

/// The condition that has the type `type_`.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Returns all conditions of the pool. A condition keeps its transition time until its status changes. The result also
/// contains the conditions that other programs wrote.
pub(super) fn all(inputs: &Inputs<'_>, counts: &Counts, old: &[Condition]) -> Vec<Condition> {
    let mut all = vec![
        (READY, ready(inputs)),
        (ACCEPTED, accepted(inputs)),
        (BLOCKS_EXHAUSTED, blocks_exhausted(inputs, counts)),
        (EXHAUSTED, exhausted(inputs, counts)),
        (ADDRESS_CONFLICT, address_conflict(inputs)),
        (MISCONFIGURED, spec_problems::misconfigured(inputs)),
    ];
    if inputs.pool.metadata.deletion_timestamp.is_some() {
        all.push((TERMINATING, terminating(inputs, counts)));
    }
    let condition = |(type_, state): (&str, State)| {
        let status = match state.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let since = find(old, type_).filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: state.reason.to_owned(),
            message: shortened(&state.message, MAX_MESSAGE_BYTES),
            last_transition_time: since.unwrap_or_else(|| inputs.now.clone()),
            observed_generation: inputs.pool.metadata.generation,
        }
    };
    let foreign = old.iter().filter(|old| !OWN.contains(&old.type_.as_str()));
    all.into_iter().map(condition).chain(foreign.cloned()).collect()
}

fn ready(inputs: &Inputs<'_>) -> State {
    let shape = match inputs.shape {
        Ok(shape) => shape,
        Err(error) => return invalid(error),
    };
    if inputs.pool.metadata.deletion_timestamp.is_some() {
        return state(false, "Terminating", "the pool is being deleted and assigns no addresses: create another pool");
    }
    if inputs.pool.spec.draining {
        return state(
            false,
            "Draining",
            "the pool is draining and assigns no new addresses: set spec.draining to false to use the pool again",
        );
    }
    let overlaps: Vec<String> = inputs.acceptance.rejected.iter().map(ToString::to_string).collect();
    let overlaps = overlaps.join("; ");
    if inputs.view.node_addresses.len() > MAX_NODE_ADDRESSES {
        return state(
            false,
            NODE_ADDRESS,
            format!(
                "more than {MAX_NODE_ADDRESSES} addresses of Nodes lie in the pool: create another pool outside of the Nodes' network"
            ),
        );
    }
    match (shape.accepted.contains(&true), overlaps.is_empty()) {
        // The pool stays ready although a new entry is rejected, because pods use the accepted entries.
        (true, false) => state(
            true,
            OVERLAPS,
            format!("the pool is ready, but the operator has not accepted all of its subnets: {overlaps}"),
        ),
        (false, false) => state(false, OVERLAPS, overlaps),
        (true, true) => state(true, "SubnetsAccepted", "nodes can claim blocks of the accepted subnets"),
        (false, true) => {
            state(false, "Pending", "the operator is comparing the pool's subnets with the subnets of other pools")
        }
    }
}

/// The state of a condition while the spec can't be parsed.
fn invalid(error: &ShapeError) -> State {
    state(false, "Invalid", format!("the operator can't divide the pool into blocks: {error}"))
}

fn accepted(inputs: &Inputs<'_>) -> State {
    let shape = match inputs.shape {
        Ok(shape) => shape,
        Err(error) => return invalid(error),
    };
    let rejected = &inputs.acceptance.rejected;
    if let Some(first) = rejected.first() {
        let all: Vec<String> = rejected.iter().map(ToString::to_string).collect();
        return state(false, first.reason(), all.join("; "));
    }
    if shape.accepted.contains(&false) {
        return state(None, "Pending", "the operator is comparing a subnet with the addresses of other objects");
    }
    state(true, "SubnetsAccepted", "the operator has accepted all subnets of the pool")
}

/// The state of the conditions `Exhausted` and `BlocksExhausted` while the pool has no accepted subnet.
fn nothing_accepted(inputs: &Inputs<'_>) -> Option<State> {
    let serves = inputs.shape.is_ok_and(|shape| shape.accepted.contains(&true));
    (!serves).then(|| state(None, "NothingAccepted", "the operator has accepted no subnet of the pool"))
}

fn blocks_exhausted(inputs: &Inputs<'_>, counts: &Counts) -> State {
    if let Some(unknown) = nothing_accepted(inputs) {
        return unknown;
    }
    if counts.free_blocks > 0 {
        return state(false, "FreeBlocks", "nodes can claim blocks of the pool");
    }
    state(
        true,
        "NoFreeBlock",
        "no node can claim another block of the pool: append a subnet to the pool's spec.subnets",
    )
}

fn address_conflict(inputs: &Inputs<'_>) -> State {
    let (nodes, services) = (&inputs.view.node_addresses, &inputs.view.service_ranges);
    let mut sentences = Vec::new();
    if let Some(first) = services.first() {
        sentences.push(format!(
            "{} ({}) overlaps the pool, so a Service and a pod can have the same address: drain the pool, or delete that ServiceCIDR",
            first.what, first.range
        ));
    }
    for node in nodes.iter().take(MAX_NAMED_NODES) {
        let pod = if node.assigned { "; an assignment has the address: delete the pod that uses it" } else { "" };
        sentences.push(format!("{}{pod}", reserved(node)));
    }
    if nodes.len() > MAX_NAMED_NODES {
        sentences.push(format!("{} more addresses of Nodes lie in the pool", nodes.len() - MAX_NAMED_NODES));
    }
    if sentences.is_empty() {
        return state(false, "NoConflict", "no Node and no Service range has addresses of the pool");
    }
    state(true, if services.is_empty() { NODE_ADDRESS } else { SERVICE_RANGE }, sentences.join("; "))
}

/// Says why an address of a Node is reserved.
fn reserved(node: &NodeAddress) -> String {
    let address = node.address;
    match &node.sighting {
        Sighting::Reported(node) => format!("the address {address} of Node {node} lies in the pool and is reserved"),
        Sighting::Earlier(node) => format!(
            "Node {node} no longer reports its address {address}, which stays reserved in the pool until the grace period (operator.nodeGracePeriod) is over"
        ),
        Sighting::Listed => format!(
            "a Node had the address {address} before this operator became the leader. The address stays reserved until the grace period (operator.nodeGracePeriod) is over"
        ),
    }
}

fn exhausted(inputs: &Inputs<'_>, counts: &Counts) -> State {
    if let Some(unknown) = nothing_accepted(inputs) {
        return unknown;
    }
    if counts.free_blocks > 0 {
        return state(false, "FreeBlocks", "the pool has free blocks");
    }
    if counts.free_in_claimed {
        return state(
            false,
            "FreeAddresses",
            "nodes have claimed all blocks, but some of these blocks have free addresses",
        );
    }
    let pool = inputs.pool.metadata.name.as_deref().unwrap_or_default();
    let total = counts.total;
    if counts.reserved == total {
        return state(
            true,
            "AllReserved",
            format!(
                "all {total} addresses of pool {pool:?} are reserved: remove entries of spec.reserved, or append a subnet to spec.subnets"
            ),
        );
    }
    state(
        true,
        "NoFreeAddress",
        format!(
            "all {total} addresses of pool {pool:?} are in use or reserved: append a subnet to the pool's spec.subnets, or delete pods that use its addresses"
        ),
    )
}

fn terminating(inputs: &Inputs<'_>, counts: &Counts) -> State {
    let blocks = inputs.view.blocks.iter().filter(|block| !block.is_free()).count();
    if counts.used == 0 && blocks == 0 {
        // A block without finalizers vanishes with its deletion.
        let kept = inputs.view.blocks.iter().find(|block| block.deleting && block.finalizer.is_none());
        if let Some(block) = kept {
            let name = name::block(&inputs.pool.name_any(), block.index);
            return state(
                true,
                "ForeignFinalizer",
                format!(
                    "the deletion of the pool waits for AddressBlock {name}, which a finalizer of another program keeps: kubectl get addressblock {name} -o yaml"
                ),
            );
        }
        let (cooldown, now) = (inputs.pool.spec.cooldown(), inputs.now.0);
        let cools = |block: &BlockInfo| !block.deleting && !block.has_cooled(cooldown, now);
        if inputs.view.cooling > 0 || inputs.view.blocks.iter().any(cools) {
            return state(
                true,
                "CoolingDown",
                format!(
                    "the deletion of the pool waits until its released addresses have cooled down, which takes up to {} s. To delete the pool at once, set spec.cooldownSeconds to 0",
                    cooldown.as_secs()
                ),
            );
        }
        return state(
            true,
            "Empty",
            "the pool is being deleted and none of its addresses is in use: the operator is about to remove the pool",
        );
    }
    let users = inputs.users;
    let named = users.iter().take(MAX_NAMED_NODES).map(|(node, count)| format!("{node} ({count})"));
    let nodes = list_names(named, users.len());
    state(
        true,
        "InUse",
        format!(
            "the deletion of the pool waits for {} addresses in {blocks} claimed blocks on {} nodes: {nodes}; delete the pods that use these addresses",
            counts.used,
            users.len()
        ),
    )
}
