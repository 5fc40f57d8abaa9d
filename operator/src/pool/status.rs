//! Computes the status of a pool: the counts, the window in which agents look for free blocks, and the conditions. The file
//! `publish` writes the status; all other files are pure.

mod conditions;
mod free_window;
mod publish;
mod write_policy;

use std::sync::Arc;

use bobbin_api_client::without_middle;
use bobbin_crds::pool::{AddressCounts, BlockCounts, FamilyCounts, MAX_NODE_ADDRESSES, RefusedSubnet};
use bobbin_crds::{AddressPool, AddressPoolStatus};
use bobbin_ipam::Family;
use bobbin_ipam::counts::{saturating, subtract};
use bobbin_ipam::overlap::Overlap;
use bobbin_ipam::pool_shape::{PoolShape, ShapeError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::accept::AcceptanceResult;
use super::carve::{all_reserved, count_outside, reserved_spans};
use crate::cache::{BlockInfo, BlockOwner, PoolView};

pub(crate) use conditions::find;

/// The maximum length of the message about one refused entry. It is small, because a pool can have 64 refused entries.
const MAX_REFUSAL_BYTES: usize = 400;

/// The values from which the operator computes the status of a pool.
pub(super) struct Inputs<'a> {
    pub(super) pool: &'a AddressPool,
    /// The parsed pool, with the entries in `acceptance.listed`.
    pub(super) shape: Result<&'a PoolShape, &'a ShapeError>,
    pub(super) view: &'a PoolView,
    pub(super) acceptance: &'a AcceptanceResult,
    /// The nodes that use a pool that is being deleted, each with its number of addresses. Empty for any other pool.
    pub(super) users: &'a [(Arc<str>, u64)],
    pub(super) now: Time,
}

/// The counts on which the pool's conditions depend.
#[derive(Default)]
struct Counts {
    /// How many blocks a node can claim now, including blocks that the operator can still carve.
    free_blocks: i64,
    /// Whether a claimed block has an address that is not assigned.
    free_in_claimed: bool,
    /// How many addresses or address pairs all accepted entries have together.
    total: i64,
    reserved: i64,
    used: i64,
}

/// Converts an overlap to an entry of `status.refusedSubnets`.
fn refused(overlap: &Overlap) -> RefusedSubnet {
    let ours = overlap.ours();
    RefusedSubnet {
        ipv4: ours.ipv4.map(|net| net.to_string()),
        ipv6: ours.ipv6.map(|net| net.to_string()),
        reason: overlap.refusal().reason.to_owned(),
        message: without_middle(&overlap.to_string(), MAX_REFUSAL_BYTES),
    }
}

/// Computes the whole status of a pool.
pub(super) fn compute(inputs: &Inputs<'_>) -> AddressPoolStatus {
    let (pool, view) = (inputs.pool, inputs.view);
    let mut status = AddressPoolStatus {
        observed_generation: pool.metadata.generation,
        accepted_subnets: inputs.acceptance.listed.clone(),
        refused_subnets: inputs.acceptance.rejected.iter().map(refused).collect(),
        next_index: inputs.acceptance.next_index,
        ..AddressPoolStatus::default()
    };
    let mut counts = Counts { used: saturating(view.used.into()), ..Counts::default() };
    if let Ok(shape) = inputs.shape {
        status.addresses = addresses(shape, view);
        let family = status.addresses.ipv4.or(status.addresses.ipv6).unwrap_or_default();
        (status.free, status.used) = (family.free, family.assigned);
        let nodes = view.node_addresses.iter().take(MAX_NODE_ADDRESSES);
        status.node_addresses = nodes.map(|node| node.address.to_string()).collect();
        status.blocks = blocks(shape, view);
        let free: Vec<u64> =
            view.blocks.iter().filter(|block| is_claimable(shape, block)).map(|block| block.index).collect();
        status.free_window = free_window::of(&free);
        // The number is rounded up to a power of two, so that most new Nodes don't change the status of any pool.
        let nodes = view.selected.without_block;
        status.nodes_without_block = (nodes > 0).then(|| i64::try_from(nodes.next_power_of_two()).unwrap_or(i64::MAX));
        (counts.total, counts.reserved) = (family.total, family.reserved);
        counts.free_blocks = status.blocks.free;
        counts.free_in_claimed = view.blocks.iter().any(|block| !block.is_free() && has_free_address(shape, block));
    }
    let old = pool.status.as_ref().map_or(&[][..], |status| &status.conditions);
    status.conditions = conditions::all(inputs, &counts, old);
    status
}

/// Whether a node may claim the block now.
pub(super) fn is_claimable(shape: &PoolShape, block: &BlockInfo) -> bool {
    block.is_free() && !block.deleting && belongs(shape, block)
}

/// Whether the operator would carve this block. Such a block has the range that the pool's layout gives to its index. It
/// lies in an accepted entry, and has an address that is not reserved.
pub(super) fn belongs(shape: &PoolShape, block: &BlockInfo) -> bool {
    let range = shape.layout.block(block.index);
    range.is_some()
        && (range == block.range || block.owner == BlockOwner::Unknown)
        && shape.accepted_spans().any(|span| span.contains(&block.index))
        && range.is_some_and(|range| !all_reserved(shape, &range))
}

fn has_free_address(shape: &PoolShape, block: &BlockInfo) -> bool {
    block.range.is_some_and(|range| {
        let usable = u128::from(range.len()).saturating_sub(shape.reserved.count_in(&range.as_subnet()));
        u128::from(block.assigned.saturating_sub(block.void)) < usable
    })
}

fn addresses(shape: &PoolShape, view: &PoolView) -> AddressCounts {
    if !shape.accepted.contains(&true) {
        return AddressCounts::default();
    }
    let layout = &shape.layout;
    // A reserved address that is assigned counts as assigned and not as reserved.
    let reserved_in_use = view.reserved_in_use.all as u128;
    let reserved = saturating(layout.reserved_count(&shape.reserved).saturating_sub(reserved_in_use));
    let has = |family| {
        shape.subnets.first().is_some_and(|subnet| match family {
            Family::Ipv4 => subnet.ipv4.is_some(),
            Family::Ipv6 => subnet.ipv6.is_some(),
        })
    };
    let of = |family| {
        has(family).then(|| {
            let total = saturating(layout.address_count(family));
            // Assignments outside of the pool's blocks must not make the sum of the counts larger than `total`.
            let reserved = reserved.min(total);
            let assigned = saturating(view.used.into()).min(subtract(total, reserved));
            let unassigned = subtract(subtract(total, reserved), assigned);
            // `view.cooling` can contain assigned addresses, for example addresses of unreadable assignments.
            let cooling = saturating(view.cooling.into()).min(unassigned);
            FamilyCounts { total, reserved, assigned, cooling, free: subtract(unassigned, cooling) }
        })
    };
    AddressCounts { ipv4: of(Family::Ipv4), ipv6: of(Family::Ipv6) }
}

fn blocks(shape: &PoolShape, view: &PoolView) -> BlockCounts {
    let total: u64 = shape.accepted_spans().map(|span| span.end - span.start).sum();
    let usable = count_outside(shape.accepted_spans(), &reserved_spans(shape));
    let claimed = view.blocks.iter().filter(|block| !block.is_free()).count() as u64;
    let claimed_of_usable = view.blocks.iter().filter(|block| !block.is_free() && belongs(shape, block)).count() as u64;
    let free = usable.saturating_sub(claimed_of_usable);
    BlockCounts {
        total: saturating(total.into()),
        claimed: saturating(claimed.into()),
        free: saturating(free.into()),
        summary: format!("{free}/{claimed}"),
    }
}

#[cfg(test)]
mod tests;
