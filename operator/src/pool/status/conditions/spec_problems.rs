//! Finds parts of a valid spec that can't do what their author probably wants. Pure.

use bobbin_crds::AddressPool;
use bobbin_ipam::SubnetPair;
use ipnet::IpNet;

use super::super::Inputs;
use super::{State, state};

/// How many entries or addresses a message names.
const MAX_NAMED: usize = 5;

/// The condition `Misconfigured`.
pub(super) fn misconfigured(inputs: &Inputs<'_>) -> State {
    let mut problems = Vec::new();
    if let Ok(shape) = inputs.shape {
        let outside = reserved_outside(inputs.pool, &shape.subnets);
        if !outside.is_empty() {
            let reserved = named(&outside, outside.len());
            problems.push(("ReservedOutside", format!("spec.reserved names {reserved}, which lies in no subnet of the pool and has no effect: correct or remove it")));
        }
    }
    let (count, addresses) = &inputs.view.reserved_in_use;
    // The condition `AddressConflict` reports addresses of Nodes.
    let of_nodes = inputs.view.node_addresses.iter().filter(|node| node.assigned);
    let of_nodes: Vec<_> = of_nodes.map(|node| node.address).collect();
    let addresses: Vec<String> =
        addresses.iter().filter(|address| !of_nodes.contains(address)).map(ToString::to_string).collect();
    if !addresses.is_empty() {
        let all = usize::try_from(*count).unwrap_or(usize::MAX).saturating_sub(of_nodes.len());
        let addresses = named(&addresses, all);
        problems.push(("ReservedInUse", format!("pods have the reserved addresses {addresses} and keep them until they are deleted: delete these pods (kubectl get ipassignments names them)")));
    }
    let Some((reason, _)) = problems.first() else {
        return state(false, "AsExpected", "every part of the spec has an effect");
    };
    let sentences: Vec<&str> = problems.iter().map(|(_, sentence)| sentence.as_str()).collect();
    state(true, reason, sentences.join("; "))
}

/// The entries of `spec.reserved` that share no address with the pool.
fn reserved_outside(pool: &AddressPool, subnets: &[SubnetPair]) -> Vec<String> {
    let is_outside = |text: &&String| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.is_ok_and(|net| {
            let net = SubnetPair::from(net);
            !subnets.iter().any(|subnet| subnet.overlaps(&net))
        })
    };
    pool.spec.reserved.iter().filter(is_outside).cloned().collect()
}

/// Up to [`MAX_NAMED`] texts, and how many more there are.
fn named(texts: &[String], all: usize) -> String {
    let first = texts.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.saturating_sub(MAX_NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
