//! The acceptance protocol of subnet entries: decides which entries of a pool the operator may carve. Pure.
//!
//! The operator first writes an entry as `Pending`. It then surveys all pools, blocks, assignments and nodes, and accepts or
//! removes the entry with the pool's resourceVersion from the survey. Two operators never both accept overlapping entries:
//! each operator surveys after its own write, and the API server refuses stale writes.

use bobbin_crds::AddressPool;
use bobbin_crds::pool::{Acceptance, AcceptedSubnet};
use bobbin_ipam::overlap::{self, AcceptanceDecision, Overlap, PoolSubnet, SubnetConflict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::layout::{accepted_entries, entry, is_of, subnet_pair};

/// The operator's decision on each subnet entry of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AcceptanceResult {
    /// The entries that the pool's status should list.
    pub(crate) listed: Vec<AcceptedSubnet>,
    /// For each entry of the spec that the status should not list: the overlap that is the reason.
    pub(crate) rejected: Vec<Overlap>,
    /// Whether an entry stays pending until the operator has decided on an overlapping entry of another pool.
    pub(crate) undecided: bool,
}

/// Whether an entry of the pool's spec is not accepted yet.
pub(crate) fn is_open(pool: &AddressPool) -> bool {
    let listed = accepted_entries(pool.status.as_ref());
    let accepted = |entry: &bobbin_crds::pool::Subnet| {
        listed.iter().any(|listed| is_of(listed, entry) && listed.state == Acceptance::Accepted)
    };
    !pool.spec.subnets.iter().all(accepted)
}

/// Whether the pool's status lists a pending entry.
pub(crate) fn is_pending(pool: &AddressPool) -> bool {
    accepted_entries(pool.status.as_ref()).iter().any(|listed| listed.state == Acceptance::Pending)
}

/// First step of the protocol: decides from the cache which new entries to write as pending.
///
/// The operator does not write an entry that it would reject, so that two pools never wait for each other forever.
pub(crate) fn propose(
    pool: &AddressPool,
    all: &[PoolSubnet],
    conflicts: &[SubnetConflict],
    now: &MicroTime,
) -> AcceptanceResult {
    let old = accepted_entries(pool.status.as_ref());
    let mut result = AcceptanceResult::default();
    for wanted in &pool.spec.subnets {
        if let Some(listed) = old.iter().find(|listed| is_of(listed, wanted)) {
            result.undecided |= listed.state == Acceptance::Pending;
            result.listed.push(listed.clone());
            continue;
        }
        let Ok(subnet) = subnet_pair(wanted) else { continue };
        match overlap::may_begin(pool.metadata.uid.as_deref().unwrap_or_default(), subnet, all, conflicts) {
            Err(overlap) => result.rejected.push(overlap),
            Ok(()) => result.listed.push(AcceptedSubnet {
                ipv4: wanted.ipv4.clone(),
                ipv6: wanted.ipv6.clone(),
                state: Acceptance::Pending,
                since: now.clone(),
            }),
        }
    }
    keep_unspecified(pool, &mut result);
    result
}

/// Second step of the protocol: decides which pending entries are accepted. `pool` must not be newer than the survey.
pub(crate) fn confirm(pool: &AddressPool, all: &[PoolSubnet], conflicts: &[SubnetConflict]) -> AcceptanceResult {
    let mut result = AcceptanceResult::default();
    for listed in accepted_entries(pool.status.as_ref()) {
        if listed.state == Acceptance::Accepted {
            result.listed.push(listed.clone());
            continue;
        }
        let Some(pending) = entry(pool, listed) else { continue };
        match overlap::decide(&pending, all, conflicts) {
            AcceptanceDecision::Accept => {
                result.listed.push(AcceptedSubnet { state: Acceptance::Accepted, ..listed.clone() });
            }
            AcceptanceDecision::Wait(_) => {
                result.undecided = true;
                result.listed.push(listed.clone());
            }
            AcceptanceDecision::Withdraw(overlap) => result.rejected.push(overlap),
        }
    }
    result
}

/// Keeps the entries that the status lists and the spec does not. Blocks of such an entry may exist, so no other pool may
/// have its addresses.
fn keep_unspecified(pool: &AddressPool, result: &mut AcceptanceResult) {
    for listed in accepted_entries(pool.status.as_ref()) {
        if !pool.spec.subnets.iter().any(|wanted| is_of(listed, wanted)) {
            result.listed.push(listed.clone());
        }
    }
}

#[cfg(test)]
mod tests;
