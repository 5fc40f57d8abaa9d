//! The condition `AddressConflict`: addresses of Nodes and Service ranges in the pool's accepted subnets. Pure.

use bobbin_api_client::join_sentences;

use super::super::Inputs;
use super::{MAX_MESSAGE_BYTES, MAX_NAMED_NODES, State, entry, is_deleting, state};
use crate::cache::{NodeAddress, Sighting};

pub(super) fn address_conflict(inputs: &Inputs<'_>) -> State {
    let (nodes, services) = (&inputs.view.node_addresses, &inputs.view.service_ranges);
    let mut sentences = Vec::new();
    if let Some(first) = services.first() {
        let remedy = if is_deleting(inputs) || inputs.pool.spec.draining {
            "delete the pods that use the pool"
        } else {
            "drain the pool"
        };
        sentences.push(format!(
            "{} ({}) overlaps the pool, so a Service and a pod can have the same address. To prevent this, {remedy}, or delete the ServiceCIDR",
            first.what, first.range
        ));
    }
    for node in nodes.iter().take(MAX_NAMED_NODES) {
        let pod = if node.assigned { "; an assignment has the address: delete the pod that uses it" } else { "" };
        sentences.push(format!("{}{pod}", reserved(node)));
    }
    if nodes.len() > MAX_NAMED_NODES {
        sentences.push(format!("{} more addresses of Nodes lie in the pool", nodes.len() - MAX_NAMED_NODES));
    }
    if sentences.is_empty() {
        // A refused subnet may still contain addresses of Nodes or Services. In that case, the condition `Accepted`
        // reports them.
        return state(
            &entry::NO_CONFLICT,
            "the accepted subnets of the pool contain no address of a Node, and overlap no Service range",
        );
    }
    let entry = if services.is_empty() { &entry::NODE_ADDRESS_INSIDE } else { &entry::SERVICE_RANGE_INSIDE };
    state(entry, join_sentences(&sentences, MAX_MESSAGE_BYTES))
}

/// Says why an address of a Node is reserved.
fn reserved(node: &NodeAddress) -> String {
    let address = node.address;
    match &node.sighting {
        Sighting::Reported(node) => format!("the address {address} of Node {node} lies in the pool and is reserved"),
        Sighting::Earlier(node) => format!(
            "Node {node} no longer reports its address {address}. The address stays reserved in the pool until the grace period (operator.nodeGracePeriod) is over"
        ),
        Sighting::Listed => format!(
            "a Node had the address {address} before this operator became the leader, but no Node has it now. The address stays reserved until the grace period (operator.nodeGracePeriod) is over"
        ),
    }
}
