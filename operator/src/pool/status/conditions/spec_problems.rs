//! Finds parts of a valid spec that probably do not have the effect that their author wants. Pure.

use bobbin_api_client::list_names;
use bobbin_crds::AddressPool;
use bobbin_ipam::{Reserved, SubnetPair};

use super::super::Inputs;
use super::{State, entry, is_deleting, state, unparsed};

/// A message names at most this many entries of `spec.reserved`.
const MAX_NAMED: usize = 5;

/// The condition `Misconfigured`.
pub(super) fn misconfigured(inputs: &Inputs<'_>) -> State {
    if is_deleting(inputs) {
        return state(&entry::SPEC_OF_DELETED, "the pool is being deleted, so the operator no longer checks its spec");
    }
    let mut problems = Vec::new();
    if let Ok(shape) = inputs.shape {
        let outside = reserved_outside(inputs.pool, &shape.subnets);
        if !outside.is_empty() {
            let reserved = list_names(outside.iter().take(MAX_NAMED), outside.len());
            problems.push((&entry::RESERVED_OUTSIDE, format!("these entries of spec.reserved lie in no subnet of the pool and have no effect: {reserved}. Correct or remove these entries")));
        }
    }
    // Leave out addresses that are reserved only because Nodes have them. The condition `AddressConflict` reports them.
    let in_use = &inputs.view.reserved_in_use;
    if in_use.by_spec > 0 {
        let addresses = list_names(&in_use.named, in_use.by_spec);
        problems.push((&entry::RESERVED_IN_USE, format!("pods use the reserved addresses {addresses}, and keep these addresses until the pods are deleted. Delete these pods. To find these pods, look for the addresses in the output of: kubectl get ipassignments")));
    }
    let Some((first, _)) = problems.first() else {
        return match inputs.shape {
            Ok(_) => state(
                &entry::AS_EXPECTED,
                "every entry of spec.reserved lies in a subnet of the pool, and no pod uses a reserved address",
            ),
            Err(error) => state(&entry::CLOSED_INVALID, unparsed(error)),
        };
    };
    let sentences: Vec<&str> = problems.iter().map(|(_, sentence)| sentence.as_str()).collect();
    state(first, sentences.join("; "))
}

/// The entries of `spec.reserved` that share no address with the pool.
fn reserved_outside(pool: &AddressPool, subnets: &[SubnetPair]) -> Vec<String> {
    let is_outside = |text: &&String| {
        Reserved::parse_entry(text).is_ok_and(|net| {
            let net = SubnetPair::from(net);
            !subnets.iter().any(|subnet| subnet.overlaps(&net))
        })
    };
    pool.spec.reserved.iter().filter(is_outside).cloned().collect()
}
