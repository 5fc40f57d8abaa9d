//! Which blocks to carve next. Pure; `keeper` asks and creates them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use bobbin_ipam::BlockRange;
use ipnet::IpNet;

use crate::facts::Loose;
use crate::layout::PoolShape;

/// At most this many blocks are carved by one pass, so that a pass ends and looks again.
const MOST_AT_ONCE: u64 = 512;

/// Indices of blocks of which every address is reserved, sorted and apart, within all entries of the pool.
pub(crate) fn reserved_spans(shape: &PoolShape) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    for (entry, subnet) in shape.subnets.iter().enumerate() {
        let span = shape.layout.span(entry);
        for net in &shape.reserved_nets {
            let Some((first, last)) = common(net, subnet.ipv4.map(IpNet::V4), subnet.ipv6.map(IpNet::V6)) else {
                continue;
            };
            let Some(from) = shape.layout.index_of(first) else { continue };
            // What lies behind the last block that counts is not looked at.
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

/// Whether no address of the block can be assigned.
pub(crate) fn all_reserved(shape: &PoolShape, block: &BlockRange) -> bool {
    shape.reserved.count_in(&block.as_subnet()) >= u128::from(block.len())
}

/// The first and last address of what a reserved net and a subnet have in common.
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

/// How many indices are in `spans` and in none of `without`, which is sorted and apart.
pub(crate) fn count_outside(spans: impl Iterator<Item = Range<u64>>, without: &[Range<u64>]) -> u64 {
    spans
        .map(|span| {
            let inside: u64 =
                without.iter().map(|other| other.end.min(span.end).saturating_sub(other.start.max(span.start))).sum();
            (span.end - span.start).saturating_sub(inside)
        })
        .sum()
}

/// The blocks that are not there while records say that addresses of them are in use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Residents {
    /// Indices that no free block may be carved at.
    pub(crate) held: BTreeSet<u64>,
    /// Those of which all records name the block itself and one node: to be carved again, claimed for that node.
    pub(crate) again: BTreeMap<u64, Arc<str>>,
}

/// Goes through records without a block. `unreadable` are ranges of records that can't be read; `None`: it may be anywhere.
pub(crate) fn residents(
    shape: &PoolShape,
    pool: &str,
    there: &BTreeSet<u64>,
    loose: &[Loose],
    unreadable: &[Option<BlockRange>],
) -> Residents {
    let mut nodes: BTreeMap<u64, Option<Arc<str>>> = BTreeMap::new();
    for record in loose.iter().filter(|record| !record.block_is_there) {
        let touched = indices(shape, &record.range);
        let whole = touched.first().copied().filter(|first| touched.iter().all(|index| index == first));
        for index in touched {
            let node = (&*record.pool == pool && record.block == index && whole == Some(index)).then_some(&record.node);
            let known = nodes.entry(index).or_insert_with(|| node.cloned());
            if known.as_ref() != node {
                *known = None;
            }
        }
    }
    let anywhere = unreadable.contains(&None);
    for index in unreadable.iter().flatten().flat_map(|range| indices(shape, range)) {
        nodes.insert(index, None);
    }
    let reserved = reserved_spans(shape);
    let is_carved = |index: &u64| {
        shape.accepted_spans().any(|span| span.contains(index)) && !reserved.iter().any(|span| span.contains(index))
    };
    let again = nodes.iter().filter(|(index, _)| !anywhere && !there.contains(index) && is_carved(index));
    let again = again.filter_map(|(index, node)| Some((*index, node.clone()?))).collect();
    Residents { held: nodes.into_keys().collect(), again }
}

/// The indices of the blocks that a range touches.
fn indices(shape: &PoolShape, range: &BlockRange) -> Vec<u64> {
    let ipv4 = range.ipv4.map(|net| net.network().into());
    let ipv6 = range.ipv6.map(|net| net.network().into());
    ipv4.into_iter().chain(ipv6).filter_map(|address| shape.layout.index_of(address)).collect()
}

/// The next indices to carve, lowest first: `missing` of them, or as many as there are, at most 512.
///
/// `there` are the indices that a block object has, whatever it is; `held` are indices with live assignments but without a
/// block, left by an earlier pool: never carved.
pub(crate) fn next(
    shape: &PoolShape,
    there: &BTreeSet<u64>,
    held: &BTreeSet<u64>,
    reserved: &[Range<u64>],
    missing: u64,
) -> Vec<u64> {
    let wanted = missing.min(MOST_AT_ONCE) as usize;
    let mut found = Vec::with_capacity(wanted);
    for span in shape.accepted_spans() {
        let mut index = span.start;
        while index < span.end && found.len() < wanted {
            let behind = reserved.partition_point(|other| other.end <= index);
            if let Some(other) = reserved.get(behind).filter(|other| other.start <= index) {
                index = other.end;
                continue;
            }
            if !there.contains(&index) && !held.contains(&index) {
                found.push(index);
            }
            index += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests;
