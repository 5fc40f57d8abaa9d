//! Which subnet entries of a pool are carved: the protocol of acceptance. Pure; `keeper` fetches and writes, `fresh` looks.
//!
//! An entry goes from absent to `Pending` (written), to a look at all pools, blocks and assignments that began after that
//! write, to `Accepted` or absent (written with the resourceVersion that the look saw). Two operators can't both win: each
//! looks after it has written, and whoever writes second on one pool is refused.

use bobbin_crds::AddressPool;
use bobbin_crds::pool::{Acceptance, AcceptedSubnet};
use bobbin_ipam::overlap::{self, AcceptanceDecision, Overlap, PoolSubnet, SubnetConflict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::layout::{accepted_entries, is_of, pair};

/// What a look at everything means for a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// What the status lists from now on.
    pub(crate) listed: Vec<AcceptedSubnet>,
    /// Why entries of the spec are not listed.
    pub(crate) refused: Vec<Overlap>,
    /// Some entry is pending still: an entry that came later has to be decided first.
    pub(crate) waits: bool,
}

/// The entries of all pools as `overlap` reads them.
pub(crate) fn entries<'a>(pools: impl IntoIterator<Item = &'a AddressPool>) -> Vec<PoolSubnet> {
    let of_pool = |pool: &'a AddressPool| {
        accepted_entries(pool.status.as_ref()).iter().filter_map(move |listed| entry(pool, listed))
    };
    pools.into_iter().flat_map(of_pool).collect()
}

fn entry(pool: &AddressPool, listed: &AcceptedSubnet) -> Option<PoolSubnet> {
    let subnet = bobbin_ipam::SubnetPair::parse(listed.ipv4.as_deref(), listed.ipv6.as_deref()).ok()?;
    Some(PoolSubnet {
        pool_uid: pool.metadata.uid.clone().unwrap_or_default(),
        pool: pool.metadata.name.clone().unwrap_or_default(),
        since: listed.since.0.as_microsecond(),
        state: listed.state,
        subnet,
    })
}

/// Whether some entry of the spec is not listed, or pending: only then is there anything to decide.
pub(crate) fn is_open(pool: &AddressPool) -> bool {
    let listed = accepted_entries(pool.status.as_ref());
    let accepted = |entry: &bobbin_crds::pool::Subnet| {
        listed.iter().any(|listed| is_of(listed, entry) && listed.state == Acceptance::Accepted)
    };
    !pool.spec.subnets.iter().all(accepted)
}

/// Whether some entry is written as pending.
pub(crate) fn is_pending(pool: &AddressPool) -> bool {
    accepted_entries(pool.status.as_ref()).iter().any(|listed| listed.state == Acceptance::Pending)
}

/// First step: which absent entries are to be written as pending, going by what the watches have shown. One that would be
/// withdrawn at once is not written, so that two pools don't take turns for ever.
pub(crate) fn propose(pool: &AddressPool, all: &[PoolSubnet], conflicts: &[SubnetConflict], now: &MicroTime) -> Ruling {
    let old = accepted_entries(pool.status.as_ref());
    let mut ruling = Ruling::default();
    for wanted in &pool.spec.subnets {
        if let Some(listed) = old.iter().find(|listed| is_of(listed, wanted)) {
            ruling.waits |= listed.state == Acceptance::Pending;
            ruling.listed.push(listed.clone());
            continue;
        }
        let Ok(subnet) = pair(wanted) else { continue };
        match overlap::may_begin(pool.metadata.uid.as_deref().unwrap_or_default(), subnet, all, conflicts) {
            Err(overlap) => ruling.refused.push(overlap),
            Ok(()) => ruling.listed.push(AcceptedSubnet {
                ipv4: wanted.ipv4.clone(),
                ipv6: wanted.ipv6.clone(),
                state: Acceptance::Pending,
                since: now.clone(),
            }),
        }
    }
    keep_foreign(pool, &mut ruling);
    ruling
}

/// Second step: what becomes of the pending entries of `pool`, which must be as the look itself saw it, or older.
pub(crate) fn confirm(pool: &AddressPool, all: &[PoolSubnet], conflicts: &[SubnetConflict]) -> Ruling {
    let mut ruling = Ruling::default();
    for listed in accepted_entries(pool.status.as_ref()) {
        if listed.state == Acceptance::Accepted {
            ruling.listed.push(listed.clone());
            continue;
        }
        let Some(pending) = entry(pool, listed) else { continue };
        match overlap::decide(&pending, all, conflicts) {
            AcceptanceDecision::Accept => {
                ruling.listed.push(AcceptedSubnet { state: Acceptance::Accepted, ..listed.clone() });
            }
            AcceptanceDecision::Wait(_) => {
                ruling.waits = true;
                ruling.listed.push(listed.clone());
            }
            AcceptanceDecision::Withdraw(overlap) => ruling.refused.push(overlap),
        }
    }
    ruling
}

/// What is listed but not in the spec stays listed: nobody may carve it while it was perhaps carved for us.
fn keep_foreign(pool: &AddressPool, ruling: &mut Ruling) {
    for listed in accepted_entries(pool.status.as_ref()) {
        if !pool.spec.subnets.iter().any(|wanted| is_of(listed, wanted)) {
            ruling.listed.push(listed.clone());
        }
    }
}

#[cfg(test)]
mod tests;
