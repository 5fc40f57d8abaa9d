//! The conditions `BlocksExhausted` and `Exhausted`: whether free blocks or free addresses are left. Pure.

use bobbin_crds::pool::MAX_NODE_ADDRESSES;

use super::super::{Counts, Inputs};
use super::ready::too_many_node_addresses;
use super::{State, entry, is_any_accepted, is_deleting, state, unparsed};

/// The state of both conditions for a pool that is closed: nodes claim no block of it, even if blocks are free. `None`
/// for any other pool.
fn closed(inputs: &Inputs<'_>) -> Option<State> {
    if is_deleting(inputs) {
        return Some(state(&entry::CLOSED_DELETED, "the pool is being deleted, so nodes claim no block of it"));
    }
    let shape = match inputs.shape {
        Ok(shape) => shape,
        Err(error) => return Some(state(&entry::CLOSED_INVALID, unparsed(error))),
    };
    if !is_any_accepted(shape) {
        return Some(state(&entry::NOTHING_ACCEPTED, "the operator has accepted no subnet of the pool"));
    }
    if inputs.pool.spec.draining {
        return Some(state(&entry::CLOSED_DRAINING, "the pool is draining, so nodes claim no block of it"));
    }
    let message = format!(
        "the pool contains more addresses of Nodes than Bobbin can reserve ({MAX_NODE_ADDRESSES}), so nodes claim no block of it. Create another pool outside of the Nodes' network"
    );
    too_many_node_addresses(inputs).then(|| state(&entry::CLOSED_NODE_ADDRESSES, message))
}

pub(super) fn blocks_exhausted(inputs: &Inputs<'_>, counts: &Counts) -> State {
    if let Some(unknown) = closed(inputs) {
        return unknown;
    }
    if counts.free_blocks > 0 {
        return state(&entry::FREE_BLOCKS, "the pool has free blocks");
    }
    state(
        &entry::NO_FREE_BLOCK,
        "no node can claim another block of the pool: append a subnet to the pool's spec.subnets",
    )
}

pub(super) fn exhausted(inputs: &Inputs<'_>, counts: &Counts) -> State {
    if let Some(unknown) = closed(inputs) {
        return unknown;
    }
    if counts.free_blocks > 0 {
        return state(&entry::FREE_BLOCKS, "the pool has free blocks");
    }
    if counts.free_in_claimed {
        return state(
            &entry::FREE_ADDRESSES,
            "nodes have claimed all blocks, but some of these blocks have free addresses",
        );
    }
    let pool = inputs.pool.metadata.name.as_deref().unwrap_or_default();
    let total = counts.total;
    if counts.reserved == total {
        return state(
            &entry::ALL_RESERVED,
            format!(
                "all {total} addresses of pool {pool:?} are reserved: remove entries of spec.reserved, or append a subnet to spec.subnets"
            ),
        );
    }
    state(
        &entry::NO_FREE_ADDRESS,
        format!(
            "all {total} addresses of pool {pool:?} are in use or reserved: append a subnet to the pool's spec.subnets, or delete pods that use its addresses"
        ),
    )
}
