//! What a pool's status says, and how soon a change of it is written. Pure; `keeper` asks and writes.

mod conditions;
mod urgency;
mod window;

use bobbin_crds::pool::{AcceptedSubnet, AddressCounts, BlockCounts, FamilyCounts};
use bobbin_crds::{AddressPool, AddressPoolStatus};
use bobbin_ipam::Family;
use bobbin_ipam::counts::{saturating, subtract};
use bobbin_ipam::overlap::Overlap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::carve::{all_reserved, count_outside, reserved_spans};
use crate::facts::{BlockFact, Holder, PoolView};
use crate::layout::PoolShape;

pub(crate) use conditions::find;
pub(crate) use urgency::{Urgency, interval, urgency};

/// What a status is made of.
pub(crate) struct Inputs<'a> {
    pub(crate) pool: &'a AddressPool,
    /// The pool with `listed` as its accepted entries, read; an error is the sentence for the condition.
    pub(crate) shape: Result<&'a PoolShape, &'a str>,
    pub(crate) view: &'a PoolView,
    pub(crate) listed: Vec<AcceptedSubnet>,
    pub(crate) refused: &'a [Overlap],
    /// Nodes that hold addresses or blocks; only looked at for a pool that is being deleted.
    pub(crate) holders: &'a [(std::sync::Arc<str>, u64)],
    pub(crate) now: Time,
}

/// The counts that the conditions follow from.
pub(crate) struct Counted {
    /// Blocks that can be claimed now or be carved.
    pub(crate) free_blocks: i64,
    /// A claimed block has an address that no assignment holds.
    pub(crate) free_in_claimed: bool,
    /// Pairs of all accepted entries.
    pub(crate) total: i64,
    pub(crate) used: i64,
}

/// The whole status.
pub(crate) fn compute(inputs: &Inputs<'_>) -> AddressPoolStatus {
    let (pool, view) = (inputs.pool, inputs.view);
    let mut status = AddressPoolStatus {
        observed_generation: pool.metadata.generation,
        used: saturating(view.used.into()),
        accepted_subnets: inputs.listed.clone(),
        ..AddressPoolStatus::default()
    };
    let mut counted = Counted { free_blocks: 0, free_in_claimed: false, total: 0, used: status.used };
    if let Ok(shape) = inputs.shape {
        status.addresses = addresses(shape, view);
        let family = status.addresses.ipv4.or(status.addresses.ipv6).unwrap_or_default();
        status.free = family.free;
        status.blocks = blocks(shape, view);
        let free: Vec<u64> =
            view.blocks.iter().filter(|block| claimable(shape, block)).map(|block| block.index).collect();
        status.free_window = window::of(&free);
        counted.total = family.total;
        counted.free_blocks = status.blocks.free;
        counted.free_in_claimed = view.blocks.iter().any(|block| !block.is_free() && has_room(shape, block));
    }
    let old = pool.status.as_ref().map_or(&[][..], |status| &status.conditions);
    status.conditions = conditions::all(inputs, &counted, old);
    status
}

/// Whether an agent may claim the block: it is free, of an accepted entry, where it should be, and not wholly reserved.
pub(crate) fn claimable(shape: &PoolShape, block: &BlockFact) -> bool {
    block.is_free() && !block.deleting && belongs(shape, block)
}

/// Whether the block is one that the pool would carve.
pub(crate) fn belongs(shape: &PoolShape, block: &BlockFact) -> bool {
    let range = shape.layout.block(block.index);
    range.is_some()
        && (range == block.range || block.holder == Holder::Unknown)
        && shape.accepted_spans().any(|span| span.contains(&block.index))
        && range.is_some_and(|range| !all_reserved(shape, &range))
}

fn has_room(shape: &PoolShape, block: &BlockFact) -> bool {
    block.range.is_some_and(|range| {
        let usable = u128::from(range.len()).saturating_sub(shape.reserved.count_in(&range.as_subnet()));
        u128::from(block.assigned) < usable
    })
}

fn addresses(shape: &PoolShape, view: &PoolView) -> AddressCounts {
    let Some(layout) = shape.counted() else { return AddressCounts::default() };
    let reserved = saturating(layout.reserved_count(&shape.reserved));
    let has = |family| {
        shape.subnets.first().is_some_and(|subnet| match family {
            Family::Ipv4 => subnet.ipv4.is_some(),
            Family::Ipv6 => subnet.ipv6.is_some(),
        })
    };
    let of = |family| {
        has(family).then(|| {
            let total = saturating(layout.address_count(family));
            let assigned = saturating(view.used.into());
            let rest = subtract(subtract(total, reserved), assigned);
            // An address that was freed and went out again does not rest any more.
            let cooling = saturating(view.cooling.into()).min(rest);
            FamilyCounts { total, reserved, assigned, cooling, free: subtract(rest, cooling) }
        })
    };
    AddressCounts { ipv4: of(Family::Ipv4), ipv6: of(Family::Ipv6) }
}

fn blocks(shape: &PoolShape, view: &PoolView) -> BlockCounts {
    let total: u64 = shape.accepted_spans().map(|span| span.end - span.start).sum();
    let usable = count_outside(shape.accepted_spans(), &reserved_spans(shape));
    let claimed = view.blocks.iter().filter(|block| !block.is_free()).count() as u64;
    let claimed_of_usable = view.blocks.iter().filter(|block| !block.is_free() && belongs(shape, block)).count() as u64;
    BlockCounts {
        total: saturating(total.into()),
        claimed: saturating(claimed.into()),
        free: saturating(usable.saturating_sub(claimed_of_usable).into()),
    }
}

#[cfg(test)]
mod tests;
