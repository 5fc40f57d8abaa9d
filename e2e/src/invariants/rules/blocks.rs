//! Checks that blocks don't overlap, lie in their pools, belong to existing Nodes, and are in the checkpoints of their
//! nodes.

use super::{cidrs, overlap};
use crate::invariants::finding::{Findings, Kind};
use crate::invariants::snapshot::{ApiObjects, Block, Snapshot};

pub(super) fn check(snapshot: &Snapshot, findings: &mut Findings) {
    let Some(api) = &snapshot.api else { return };
    overlapping(&api.blocks, findings);
    for block in &api.blocks {
        owner(block, api, findings);
        let pool = api.pools.iter().find(|pool| pool.name == block.pool);
        let accepted = pool.into_iter().flat_map(|pool| &pool.accepted).flat_map(|subnet| &subnet.ranges);
        let accepted: Vec<_> = accepted.collect();
        if block.ranges.iter().any(|range| !accepted.iter().any(|subnet| subnet.contains(range))) {
            let Block { name, pool, ranges, .. } = block;
            let text = format!("block {name} ({}) lies in no accepted subnet of pool {pool}", cidrs(ranges));
            findings.add(Kind::BlockOutsidePool, text);
        }
    }
    for machine in snapshot.machines.iter().filter(|machine| machine.checkpoint.exists) {
        let node = &machine.name;
        let saved = &machine.checkpoint.blocks;
        let is_own = |name: &str| {
            api.blocks.iter().any(|block| block.name == *name && block.node.as_deref() == Some(node.as_str()))
        };
        for block in saved.iter().filter(|block| block.serving && !is_own(&block.name)) {
            let text = format!("node {node} assigns addresses of block {}, but has not claimed this block", block.name);
            findings.add(Kind::SavedBlocksDiffer, text);
        }
        let own = api.blocks.iter().filter(|block| block.node.as_deref() == Some(node.as_str()));
        for block in own.filter(|block| !saved.iter().any(|one| one.name == block.name)) {
            let text = format!("node {node} has claimed block {}, but its checkpoint lacks the block", block.name);
            findings.add(Kind::SavedBlocksDiffer, text);
        }
    }
}

fn owner(block: &Block, api: &ApiObjects, findings: &mut Findings) {
    let Block { name, node: Some(node), node_uid, .. } = block else { return };
    match api.nodes.get(node) {
        None => {
            let text = format!("block {name} is claimed by node {node}, which does not exist");
            findings.add(Kind::BlockOfMissingNode, text);
        }
        Some(uid) if node_uid.as_ref().is_some_and(|claimed| claimed != uid) => {
            let text = format!("block {name} is claimed by an earlier Node {node} with another UID");
            findings.add(Kind::BlockOfMissingNode, text);
        }
        Some(_) => {}
    }
}

/// Finds blocks that overlap. Two CIDRs overlap only if one contains the other. The function sorts the CIDRs by their
/// first address, and puts a wider CIDR before a narrower one. So each CIDR comes after all CIDRs that contain it.
/// `widest` is the last CIDR that does not lie in an earlier CIDR. A CIDR that lies in any earlier CIDR also lies in
/// `widest`.
fn overlapping(blocks: &[Block], findings: &mut Findings) {
    let mut ranges: Vec<_> =
        blocks.iter().flat_map(|block| block.ranges.iter().map(move |range| (range, block))).collect();
    ranges.sort_by_key(|(range, _)| (range.network(), range.prefix_len()));
    let mut widest: Option<(&ipnet::IpNet, &Block)> = None;
    for (range, block) in ranges {
        match widest {
            Some((wide, other)) if overlap(wide, range) => {
                let text = format!("blocks {} ({wide}) and {} ({range}) overlap", other.name, block.name);
                findings.add(Kind::OverlappingBlocks, text);
            }
            _ => widest = Some((range, block)),
        }
    }
}
