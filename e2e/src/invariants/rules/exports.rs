//! Checks that table 119 of each node has exactly the node's blocks, and that no two nodes export the same address.

use ipnet::IpNet;

use super::overlap;
use crate::invariants::finding::{Findings, Kind};
use crate::invariants::snapshot::{Block, Machine, Snapshot};

pub(super) fn check(snapshot: &Snapshot, findings: &mut Findings) {
    twice(&snapshot.machines, findings);
    let Some(api) = &snapshot.api else { return };
    for machine in &snapshot.machines {
        let is_own = |block: &&Block| block.node.as_deref() == Some(machine.name.as_str());
        for block in api.blocks.iter().filter(is_own) {
            missing(machine, block, snapshot, findings);
        }
        for export in &machine.kernel.exports {
            if !api.blocks.iter().filter(is_own).any(|block| block.ranges.contains(export)) {
                foreign(machine, export, &api.blocks, findings);
            }
        }
    }
}

fn missing(machine: &Machine, block: &Block, snapshot: &Snapshot, findings: &mut Findings) {
    let node = &machine.name;
    let assigned = snapshot.api.iter().flat_map(|api| &api.assignments);
    let count = assigned.filter(|one| one.block == block.name && one.node == *node).count();
    for range in &block.ranges {
        let name = &block.name;
        if !machine.kernel.exports.contains(range) {
            let text = format!(
                "node {node} does not export its block {name} ({range}); assignments of the node in this block: {count}"
            );
            findings.add(Kind::NotExported, text);
        }
        if !machine.kernel.blackholes.contains(range) {
            let text = format!("node {node} has no blackhole route for its block {name} ({range})");
            findings.add(Kind::NotExported, text);
        }
    }
}

fn foreign(machine: &Machine, export: &IpNet, blocks: &[Block], findings: &mut Findings) {
    let node = &machine.name;
    let block = blocks.iter().find(|block| block.ranges.iter().any(|range| overlap(range, export)));
    let owner = block.and_then(|block| block.node.as_deref());
    let what = match (block, owner) {
        (None, _) => "which overlaps no block".to_owned(),
        (Some(block), None) => format!("but block {} is free", block.name),
        (Some(block), Some(owner)) => format!("but block {} belongs to node {owner}", block.name),
    };
    let used: Vec<String> =
        uses(machine).filter(|address| export.contains(address)).map(|one| one.to_string()).collect();
    match (owner, used.first()) {
        (Some(_), Some(used)) => {
            findings.add(Kind::ForeignBlockUsed, format!("node {node} exports {export} and uses {used}, {what}"));
        }
        _ => findings.add(Kind::ForeignExport, format!("node {node} exports {export}, {what}")),
    }
}

/// The addresses of a machine's attachments.
fn uses(machine: &Machine) -> impl Iterator<Item = std::net::IpAddr> {
    let saved = machine.checkpoint.attachments.iter().flat_map(|attachment| attachment.addresses.iter().copied());
    let inside = machine.sandboxes.iter().flat_map(|sandbox| sandbox.addresses.iter().map(|(_, address)| *address));
    saved.chain(inside)
}

fn twice(machines: &[Machine], findings: &mut Findings) {
    for (number, one) in machines.iter().enumerate() {
        for other in machines.iter().skip(number + 1) {
            for (a, b) in one.kernel.exports.iter().flat_map(|a| other.kernel.exports.iter().map(move |b| (a, b))) {
                if overlap(a, b) {
                    let (one, other) = (&one.name, &other.name);
                    let text = format!(
                        "nodes {one} and {other} both export addresses of {a} ({one} exports {a}, {other} exports {b})"
                    );
                    findings.add(Kind::ExportedTwice, text);
                }
            }
        }
    }
}
