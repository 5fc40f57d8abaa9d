//! The condition `Ready`: whether nodes can claim blocks of the pool. Pure.

use bobbin_crds::pool::MAX_NODE_ADDRESSES;
use bobbin_ipam::parse_selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::super::Inputs;
use super::{State, entry, is_any_accepted, is_deleting, refusals, state, unparsed};

pub(super) fn ready(inputs: &Inputs<'_>) -> State {
    if is_deleting(inputs) {
        return state(
            &entry::NOT_READY_DELETED,
            "the pool is being deleted and assigns no addresses: create another pool",
        );
    }
    let shape = match inputs.shape {
        Ok(shape) => shape,
        Err(error) => return state(&entry::INVALID, unparsed(error)),
    };
    let serves = is_any_accepted(shape);
    if inputs.pool.spec.draining {
        let remedy = if serves {
            ": set spec.draining to false to use the pool again"
        } else {
            ", and the operator has accepted none of its subnets. To use the pool again, correct the subnets as the condition Accepted says, and set spec.draining to false"
        };
        return state(&entry::NOT_READY_DRAINING, format!("the pool is draining and assigns no new addresses{remedy}"));
    }
    if too_many_node_addresses(inputs) {
        return state(
            &entry::NOT_READY_NODE_ADDRESSES,
            format!(
                "the pool contains more addresses of Nodes than Bobbin can reserve ({MAX_NODE_ADDRESSES}), so nodes claim no block of it. Create another pool outside of the Nodes' network"
            ),
        );
    }
    let overlaps = refusals(inputs);
    match (serves, overlaps.is_empty(), nobody_admitted(inputs)) {
        // The pool stays ready although it admits no node. Agents claim only blocks of ready pools, so the first
        // admitted node would otherwise wait for the operator.
        (true, _, Some(nobody)) => state(&entry::NO_NODE_ADMITTED, nobody),
        // The pool stays ready although a new entry is rejected, because pods use the accepted entries.
        (true, false, None) => state(
            &entry::PARTLY_READY,
            format!("the pool is ready, but the operator has not accepted all of its subnets: {overlaps}"),
        ),
        (false, false, _) => state(&entry::OVERLAPS, overlaps),
        (true, true, None) => state(&entry::READY, "nodes can claim blocks of the accepted subnets"),
        (false, true, _) => state(
            &entry::NOT_READY_PENDING,
            "the operator is comparing the pool's subnets with the subnets of other pools",
        ),
    }
}

/// Whether the pool is not ready because too many addresses of Nodes lie in it.
pub(super) fn too_many_node_addresses(inputs: &Inputs<'_>) -> bool {
    inputs.view.node_addresses.len() > MAX_NODE_ADDRESSES
}

/// Why the pool admits no node. `None` if the pool admits a node or the cluster has no Node. The message contains no count,
/// so that a new Node does not change it.
fn nobody_admitted(inputs: &Inputs<'_>) -> Option<String> {
    if !inputs.view.selected.admits_none() || inputs.view.nodes == 0 {
        return None;
    }
    let selector = inputs.pool.spec.node_selector.clone().unwrap_or_default();
    let selects_all = selector == LabelSelector::default();
    let why = match parse_selector(&selector) {
        Err(error) => format!("its spec.nodeSelector admits no node, because {error}"),
        Ok(_) if inputs.view.selected.out_of_service > 0 => {
            let selected = if selects_all { "" } else { " that its spec.nodeSelector selects" };
            format!(
                "every Node{selected} is out of service. If the machines run, remove the taint node.kubernetes.io/out-of-service"
            )
        }
        Ok(selector) => format!(
            "its spec.nodeSelector \"{selector}\" selects no Node of the cluster. Correct the selector, or label the Nodes that should use the pool"
        ),
    };
    Some(format!("the pool is ready, but no node can claim a block of it: {why}"))
}
