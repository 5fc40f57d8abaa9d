//! Checks that each node's kernel matches the node's checkpoint: links, routes, neighbours, rules and the anti-spoofing
//! filter.

use super::Names;
use crate::invariants::finding::{Findings, Kind};
use crate::invariants::snapshot::{Machine, SavedAttachment, Snapshot};

pub(super) fn check(snapshot: &Snapshot, names: &Names<'_>, findings: &mut Findings) {
    for machine in &snapshot.machines {
        for attachment in &machine.checkpoint.attachments {
            wired(machine, attachment, names, findings);
        }
        if machine.checkpoint.exists {
            without_attachment(machine, names, findings);
        }
        node(machine, findings);
    }
}

/// Checks that an attachment of the checkpoint has its link, routes, neighbours and namespace.
fn wired(machine: &Machine, attachment: &SavedAttachment, names: &Names<'_>, findings: &mut Findings) {
    let (node, kernel) = (&machine.name, &machine.kernel);
    let who = names.who(&attachment.key);
    let missing = |findings: &mut Findings, what: String| {
        findings.add(Kind::MissingInKernel, format!("the checkpoint of {node} has {who}, but {what}"));
    };
    let inside = |address| {
        let mut addresses = machine.sandboxes.iter().flat_map(|sandbox| {
            sandbox.addresses.iter().map(|(interface, address)| (sandbox.attachment(interface), *address))
        });
        addresses.any(|(key, found)| key.as_ref() == Some(&attachment.key) && found == address)
    };
    for address in attachment.addresses.iter().filter(|address| !inside(**address)) {
        missing(findings, format!("no network namespace has {address} for this attachment"));
    }
    let Some(link) = kernel.links.iter().find(|link| link.attachment == attachment.key) else {
        missing(findings, "no host link has the alias of this attachment".to_owned());
        return;
    };
    for address in &attachment.addresses {
        match kernel.pod_routes.iter().find(|route| route.to == *address) {
            None => missing(findings, format!("table 116 has no route to {address}")),
            Some(route) if route.link != link.name => {
                let (wrong, right) = (&route.link, &link.name);
                let text = format!("{node} routes {address} of {who} over link {wrong} instead of {right}");
                findings.add(Kind::WrongRoute, text);
            }
            Some(_) => {}
        }
        if !kernel.neighbours.iter().any(|(to, over)| to == address && *over == link.name) {
            let text = format!("node {node} has no permanent neighbour {address} on link {} of {who}", link.name);
            findings.add(Kind::IncompleteNetwork, text);
        }
    }
    if !link.filtered {
        let text = format!("link {} of {who} on {node} is not in the group of the anti-spoofing filter", link.name);
        findings.add(Kind::IncompleteNetwork, text);
    }
}

/// Checks that each link and each pod route belongs to an attachment of the checkpoint.
fn without_attachment(machine: &Machine, names: &Names<'_>, findings: &mut Findings) {
    let (node, kernel, checkpoint) = (&machine.name, &machine.kernel, &machine.checkpoint);
    for link in &kernel.links {
        let is_known = checkpoint.attachments.iter().any(|one| one.key == link.attachment)
            || checkpoint.unreadable.contains(&link.attachment);
        if !is_known {
            let who = names.who(&link.attachment);
            let text =
                format!("node {node} has link {} of {who}, but its checkpoint has no such attachment", link.name);
            findings.add(Kind::MissingInCheckpoint, text);
        }
    }
    for route in &kernel.pod_routes {
        if !checkpoint.attachments.iter().any(|one| one.addresses.contains(&route.to))
            && checkpoint.unreadable.is_empty()
        {
            let link = kernel.links.iter().find(|link| link.name == route.link);
            let over = link.map_or("no link of a pod".to_owned(), |link| {
                format!("link {} of {}", link.name, names.who(&link.attachment))
            });
            let text = format!(
                "node {node} has a route to {} in table 116 over {} ({over}), but its checkpoint has no attachment with this address",
                route.to, route.link
            );
            findings.add(Kind::MissingInCheckpoint, text);
        }
    }
}

/// Checks the rules and the filter that a node needs once for all pods.
fn node(machine: &Machine, findings: &mut Findings) {
    let node = &machine.name;
    for key in &machine.checkpoint.unreadable {
        let text = format!("the checkpoint of {node} has a file of {} that can't be read", super::container(key));
        findings.add(Kind::Unread, text);
    }
    let addresses: Vec<_> = machine.checkpoint.attachments.iter().flat_map(|one| &one.addresses).collect();
    for (family, is_ipv6) in [("IPv4", false), ("IPv6", true)] {
        let used = addresses.iter().any(|address| address.is_ipv6() == is_ipv6);
        if used && !machine.kernel.rules[usize::from(is_ipv6)] {
            let text = format!("node {node} has {family} pods, but no {family} rule that looks up table 116");
            findings.add(Kind::IncompleteNetwork, text);
        }
    }
    if !addresses.is_empty() && !machine.kernel.filter {
        findings.add(Kind::IncompleteNetwork, format!("node {node} has pods, but no anti-spoofing filter"));
    }
}
