//! Decides which blocks to carve next, and which missing blocks to recreate. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bobbin_ipam::BlockRange;
use bobbin_ipam::free_blocks::PoolStock;
use bobbin_ipam::pool_shape::PoolShape;
use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;

use crate::cache::{BlockInfo, PoolView, SuspectAssignment};
use crate::pool::status;

/// The maximum number of blocks that one pass carves. The maximum is small, so that a pass ends soon, the status shows the
/// new blocks, and the next pass sees new demand.
pub(super) const MAX_BLOCKS_PER_PASS: u64 = 128;
/// The maximum number of surplus blocks that one pass deletes.
const MAX_DELETIONS_PER_PASS: u64 = 512;

/// The blocks whose addresses are all reserved, as sorted and disjoint ranges of indices.
pub(crate) fn reserved_spans(shape: &PoolShape) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    for (entry, subnet) in shape.subnets.iter().enumerate() {
        let span = shape.layout.span(entry);
        for net in shape.reserved.nets() {
            let Some((first, last)) = common(&net, subnet.ipv4.map(IpNet::V4), subnet.ipv6.map(IpNet::V6)) else {
                continue;
            };
            let Some(from) = shape.layout.index_of(first) else { continue };
            // A subnet may have addresses that are in none of its blocks. The address `last` may be such an address.
            let to = shape.layout.index_of(last).unwrap_or(span.end - 1);
            if to > from + 1 {
                spans.push(from + 1..to);
            }
            for edge in [from, to] {
                if shape.layout.block(edge).is_some_and(|block| all_reserved(shape, &block)) {
                    spans.push(edge..edge + 1);
                }
            }
        }
    }
    merge(spans)
}

/// Whether every address of the block is reserved.
pub(crate) fn all_reserved(shape: &PoolShape, block: &BlockRange) -> bool {
    shape.reserved.count_in(&block.as_subnet()) >= u128::from(block.len())
}

/// The first and the last address of the overlap of the reserved net and the subnet. `None` if they don't overlap.
fn common(net: &IpNet, ipv4: Option<IpNet>, ipv6: Option<IpNet>) -> Option<(IpAddr, IpAddr)> {
    let subnet = match net {
        IpNet::V4(_) => ipv4?,
        IpNet::V6(_) => ipv6?,
    };
    let inner = if net.contains(&subnet) {
        subnet
    } else if subnet.contains(net) {
        *net
    } else {
        return None;
    };
    Some((inner.network(), inner.broadcast()))
}

fn merge(mut spans: Vec<Range<u64>>) -> Vec<Range<u64>> {
    spans.sort_unstable_by_key(|span| span.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// How many indices are in `spans` but not in `without`. The ranges in `without` must not overlap.
pub(crate) fn count_outside(spans: impl Iterator<Item = Range<u64>>, without: &[Range<u64>]) -> u64 {
    spans
        .map(|span| {
            let inside: u64 =
                without.iter().map(|other| other.end.min(span.end).saturating_sub(other.start.max(span.start))).sum();
            (span.end - span.start).saturating_sub(inside)
        })
        .sum()
}

/// The blocks that do not exist although some of their addresses are assigned.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MissingBlocks {
    /// The indices of all missing blocks. The operator carves no free block at these indices.
    pub(crate) occupied: BTreeSet<u64>,
    /// The missing blocks to recreate, each with its node. The operator recreates a block only if all assignments of the
    /// block's addresses agree: they name this block and one node.
    pub(crate) recreatable: BTreeMap<u64, Arc<str>>,
}

/// Finds the missing blocks by the suspect assignments and by the ranges of unreadable assignments. A range is `None` if it
/// is unknown.
pub(crate) fn missing_blocks(
    shape: &PoolShape,
    pool: &str,
    existing: &BTreeSet<u64>,
    suspects: &[SuspectAssignment],
    unreadable: &[Option<BlockRange>],
) -> MissingBlocks {
    let mut nodes: BTreeMap<u64, Option<Arc<str>>> = BTreeMap::new();
    for suspect in suspects.iter().filter(|suspect| suspect.lacks_block()) {
        let touched = indices(shape, &suspect.range);
        let only = touched.first().copied().filter(|first| touched.iter().all(|index| index == first));
        for index in touched {
            let is_own = &*suspect.pool == pool && suspect.block == index && only == Some(index);
            let node = is_own.then_some(&suspect.node);
            let known = nodes.entry(index).or_insert_with(|| node.cloned());
            if known.as_ref() != node {
                *known = None;
            }
        }
    }
    let is_any_unknown = unreadable.contains(&None);
    for index in unreadable.iter().flatten().flat_map(|range| indices(shape, range)) {
        nodes.insert(index, None);
    }
    let reserved = reserved_spans(shape);
    let is_carved = |index: &u64| {
        shape.accepted_spans().any(|span| span.contains(index)) && !reserved.iter().any(|span| span.contains(index))
    };
    let recreatable =
        nodes.iter().filter(|(index, _)| !is_any_unknown && !existing.contains(index) && is_carved(index));
    let recreatable = recreatable.filter_map(|(index, node)| Some((*index, node.clone()?))).collect();
    MissingBlocks { occupied: nodes.into_keys().collect(), recreatable }
}

/// The indices of the blocks that share an address with the range.
fn indices(shape: &PoolShape, range: &BlockRange) -> Vec<u64> {
    let ipv4 = range.ipv4.map(|net| net.network().into());
    let ipv6 = range.ipv6.map(|net| net.network().into());
    ipv4.into_iter().chain(ipv6).filter_map(|address| shape.layout.index_of(address)).collect()
}

/// Counts the nodes and blocks that decide how many free blocks the pool should have.
///
/// A free block that is still cooling down, or that still has its finalizer, does not count as free. The operator creates
/// another block instead, so that a node's new pods do not get addresses that are cooling down.
pub(super) fn stock(shape: &PoolShape, view: &PoolView, cooldown: Duration, now: Timestamp) -> PoolStock {
    let count = |is: &dyn Fn(&BlockInfo) -> bool| view.blocks.iter().filter(|block| is(block)).count() as u64;
    PoolStock {
        nodes_without_block: view.selected.without_block,
        nodes_with_block: view.selected.with_block,
        claimed: count(&|block| !block.is_free()),
        free: count(&|block| status::is_claimable(shape, block) && block.has_cooled(cooldown, now)),
        deletable: count(&|block| is_deletable(shape, block)),
    }
}

/// The free blocks to delete, at most [`MAX_DELETIONS_PER_PASS`]. Takes the highest indices, so that the free blocks stay close
/// together.
pub(super) fn surplus<'a>(shape: &PoolShape, view: &'a PoolView, count: u64) -> Vec<&'a BlockInfo> {
    let count = count.min(MAX_DELETIONS_PER_PASS) as usize;
    view.blocks.iter().rev().filter(|block| is_deletable(shape, block)).take(count).collect()
}

/// Whether the block is free, no node ever claimed it, and certainly no assignment has an address of it.
fn is_deletable(shape: &PoolShape, block: &BlockInfo) -> bool {
    block.untouched && block.assigned == 0 && status::is_claimable(shape, block)
}

/// The next `demand` block indices to carve, lowest first. Returns fewer indices if the pool has no more blocks. Returns at
/// most [`MAX_BLOCKS_PER_PASS`] indices.
///
/// `existing` contains the indices of all blocks that exist, and `occupied` the indices of missing blocks.
pub(crate) fn next(
    shape: &PoolShape,
    existing: &BTreeSet<u64>,
    occupied: &BTreeSet<u64>,
    reserved: &[Range<u64>],
    demand: u64,
) -> Vec<u64> {
    let wanted = demand.min(MAX_BLOCKS_PER_PASS) as usize;
    let mut found = Vec::with_capacity(wanted);
    for span in shape.accepted_spans() {
        let mut index = span.start;
        while index < span.end && found.len() < wanted {
            let behind = reserved.partition_point(|other| other.end <= index);
            if let Some(other) = reserved.get(behind).filter(|other| other.start <= index) {
                index = other.end;
                continue;
            }
            if !existing.contains(&index) && !occupied.contains(&index) {
                found.push(index);
            }
            index += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests;
