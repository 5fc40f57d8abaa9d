//! Checks that each address in use is held by its node and has an assignment. Checks that each assignment has a living
//! attachment and lies in a block of its node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bobbin_ipam::AttachmentKey;

use super::{Names, list, pod_name};
use crate::invariants::finding::{Findings, Kind};
use crate::invariants::snapshot::{ApiObjects, Assignment, Block, Machine, Snapshot};

pub(super) fn check(snapshot: &Snapshot, names: &Names<'_>, findings: &mut Findings) {
    for machine in &snapshot.machines {
        in_use(machine, snapshot.api.as_ref(), names, findings);
    }
    let Some(api) = &snapshot.api else { return };
    let machines: BTreeMap<&str, &Machine> =
        snapshot.machines.iter().map(|machine| (machine.name.as_str(), machine)).collect();
    for assignment in &api.assignments {
        leaked(assignment, api, machines.get(assignment.node.as_str()).copied(), names, findings);
        void(assignment, &api.blocks, names, findings);
    }
    for pod in api.living_pods() {
        for address in &pod.addresses {
            let has =
                |assignment: &Assignment| assignment.pod.uid == pod.id.uid && assignment.addresses.contains(address);
            if !api.assignments.iter().any(has) {
                let pod = pod_name(&pod.id);
                findings.add(
                    Kind::MissingAssignment,
                    format!("{pod} has {address} in its status, but the address has no assignment"),
                );
            }
        }
    }
}

/// Checks the addresses in a machine's network namespaces and in its checkpoint.
fn in_use(machine: &Machine, api: Option<&ApiObjects>, names: &Names<'_>, findings: &mut Findings) {
    let node = &machine.name;
    let checkpoint = &machine.checkpoint;
    let assigned = |key: &AttachmentKey, address: &IpAddr| {
        let has = |one: &Assignment| one.attachment == *key && one.addresses.contains(address);
        api.is_none_or(|api| api.assignments.iter().any(has))
    };
    for sandbox in &machine.sandboxes {
        for (interface, address) in &sandbox.addresses {
            let Some(key) = sandbox.attachment(interface) else { continue };
            let who = names.who(&key);
            let is_held = checkpoint.unreadable.contains(&key)
                || checkpoint.attachments.iter().any(|one| one.key == key && one.addresses.contains(address));
            if checkpoint.exists && !is_held {
                let text = format!(
                    "{who} on {node} has {address} in its namespace, but the checkpoint of {node} does not hold the address"
                );
                findings.add(Kind::AddressInUseFreed, text);
            }
            if let Some(api) = api
                && let Some(why) = not_a_block_of(node, api.blocks.iter().find(|block| block.contains(*address)))
            {
                let text = format!("{who} on {node} has {address} in its namespace, but {why}");
                findings.add(Kind::AddressInUseFreed, text);
            }
            if !assigned(&key, address) {
                let text = format!("{who} on {node} has {address} in its namespace, but the address has no assignment");
                findings.add(Kind::MissingAssignment, text);
            }
        }
    }
    for attachment in &checkpoint.attachments {
        for address in attachment.addresses.iter().filter(|address| !assigned(&attachment.key, address)) {
            let who = names.who(&attachment.key);
            let text = format!("{who} has {address} in the checkpoint of {node}, but the address has no assignment");
            findings.add(Kind::MissingAssignment, text);
        }
    }
}

/// Says why an address of this block does not belong to the node. Returns `None` if the node owns the block.
fn not_a_block_of(node: &str, block: Option<&Block>) -> Option<String> {
    match block {
        None => Some("no block contains the address".to_owned()),
        Some(block) => match block.node.as_deref() {
            Some(owner) if owner == node => None,
            Some(owner) => Some(format!("the address's block {} belongs to node {owner}", block.name)),
            None => Some(format!("the address's block {} is free", block.name)),
        },
    }
}

fn leaked(
    assignment: &Assignment,
    api: &ApiObjects,
    machine: Option<&Machine>,
    names: &Names<'_>,
    findings: &mut Findings,
) {
    let name = &assignment.name;
    let who = names.who(&assignment.attachment);
    let uid = &assignment.pod.uid;
    let pod = api.pods.iter().find(|pod| pod.id.uid == *uid);
    let why = match (uid.as_str(), pod) {
        (uid, None) if !uid.is_empty() => Some("this pod does not exist".to_owned()),
        (_, Some(pod)) if pod.ended => Some("this pod has ended".to_owned()),
        (_, Some(_)) if !api.nodes.contains_key(&assignment.node) => {
            Some(format!("the assignment's node {} does not exist", assignment.node))
        }
        (_, Some(pod)) if pod.node.as_deref() != Some(&assignment.node) => {
            Some(format!("this pod runs on {}, not on {}", pod.node.as_deref().unwrap_or("no node"), assignment.node))
        }
        _ => machine.and_then(|machine| {
            let checkpoint = &machine.checkpoint;
            let is_held = checkpoint.unreadable.contains(&assignment.attachment)
                || checkpoint.attachments.iter().any(|one| one.key == assignment.attachment);
            (checkpoint.exists && !is_held)
                .then(|| format!("the checkpoint of {} has no such attachment", machine.name))
        }),
    };
    if let Some(why) = why {
        findings.add(Kind::LeakedAssignment, format!("assignment {name} belongs to {who}, but {why}"));
    }
}

fn void(assignment: &Assignment, blocks: &[Block], names: &Names<'_>, findings: &mut Findings) {
    let Assignment { name, block: block_name, node, addresses, .. } = assignment;
    let who = names.who(&assignment.attachment);
    let why = match blocks.iter().find(|block| block.name == *block_name) {
        None => Some(format!("block {block_name} does not exist")),
        Some(block) if addresses.iter().any(|address| !block.contains(*address)) => Some(format!(
            "not all of its addresses ({}) are in block {block_name} ({})",
            list(addresses),
            super::cidrs(&block.ranges)
        )),
        Some(block) => not_a_block_of(node, Some(block)),
    };
    if let Some(why) = why {
        findings.add(Kind::VoidAssignment, format!("assignment {name} of {who} on {node} is void: {why}"));
    }
}
