//! Decides whether a pool's subnet may be carved, or overlaps addresses that belong to something else.
//!
//! The operator writes a subnet as pending, lists all pools and blocks live, calls [`decide`], and writes the answer with the
//! pool's resourceVersion. Of two overlapping subnets, the one that is listed later sees the other, so both are never accepted.
//! The operator of another subnet that became pending later may not have seen this one. This one then waits for that decision.
//! The operator does not write a subnet that overlaps a known one ([`may_begin`]), so that no pool waits for a subnet that
//! loses.

use std::fmt;

use bobbin_crds::pool::Acceptance;

use crate::block::BlockRange;
use crate::subnet::SubnetPair;

/// An entry of a pool's `status.acceptedSubnets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSubnet {
    /// The pool's UID.
    pub pool_uid: String,
    /// The pool's name.
    pub pool: String,
    /// When it was first written as pending: microseconds since 1970.
    pub since: i64,
    /// Whether it is pending or accepted.
    pub state: Acceptance,
    /// The addresses.
    pub subnet: SubnetPair,
}

/// Addresses in use outside of any pool: by a block or an assignment of a deleted pool, or by a node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetConflict {
    /// The object with its kind: `AddressBlock old-7`.
    pub what: String,
    /// Its addresses.
    pub range: BlockRange,
    /// Why a pool can't have these addresses, and what to do: the end of a sentence.
    pub why: &'static str,
}

impl SubnetConflict {
    /// A block or an assignment of a deleted pool.
    pub fn leftover(what: String, range: BlockRange) -> Self {
        let why = "which a deleted pool left behind: its addresses may be in use; delete the pods that use them, or wait until it is gone";
        Self { what, range, why }
    }

    /// The address of a node.
    pub fn of_node(what: String, range: BlockRange) -> Self {
        let why = "and a pod with a node's address would cut the node off: choose subnets for the pool that contain no node addresses";
        Self { what, range, why }
    }
}

/// What to do with a pending subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptanceDecision {
    /// Nothing else has its addresses: accept it.
    Accept,
    /// It overlaps a pending subnet that came later: leave this one pending until the other is decided.
    Wait(Overlap),
    /// An earlier subnet or a conflict has its addresses: withdraw it, report why, and retry when the other is gone.
    Withdraw(Overlap),
}

/// What a subnet overlaps. Its text goes into the pool's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The subnet of another pool.
    Pool {
        /// The subnet of this pool.
        ours: SubnetPair,
        /// The other pool's name.
        pool: String,
        /// Its subnet.
        subnet: SubnetPair,
    },
    /// Addresses outside of any pool.
    Conflict {
        /// The subnet of this pool.
        ours: SubnetPair,
        /// The object that uses them.
        conflict: SubnetConflict,
    },
}

/// Whether a subnet of the pool may be written as pending. A cached list suffices, because [`decide`] accepts only one of two.
///
/// # Errors
/// Fails with the subnet or object that has the addresses already, accepted or not.
pub fn may_begin<'a>(
    pool_uid: &str,
    subnet: SubnetPair,
    all: impl IntoIterator<Item = &'a PoolSubnet>,
    conflicts: impl IntoIterator<Item = &'a SubnetConflict>,
) -> Result<(), Overlap> {
    let last = PoolSubnet {
        pool_uid: pool_uid.to_owned(),
        pool: String::new(),
        since: i64::MAX,
        state: Acceptance::Pending,
        subnet,
    };
    match decide(&last, all, conflicts) {
        AcceptanceDecision::Accept => Ok(()),
        AcceptanceDecision::Wait(overlap) | AcceptanceDecision::Withdraw(overlap) => Err(overlap),
    }
}

/// Decides on a pending subnet, given the subnets of all pools and the conflicts. It ignores subnets of the same pool.
///
/// An accepted subnet stays accepted, so call this only for pending ones.
pub fn decide<'a>(
    entry: &PoolSubnet,
    all: impl IntoIterator<Item = &'a PoolSubnet>,
    conflicts: impl IntoIterator<Item = &'a SubnetConflict>,
) -> AcceptanceDecision {
    let mut wait = None;
    for other in all.into_iter().filter(|other| other.pool_uid != entry.pool_uid) {
        if !other.subnet.overlaps(&entry.subnet) {
            continue;
        }
        let overlap = Overlap::Pool { ours: entry.subnet, pool: other.pool.clone(), subnet: other.subnet };
        let earlier = (other.since, &other.pool_uid) < (entry.since, &entry.pool_uid);
        if other.state == Acceptance::Accepted || earlier {
            return AcceptanceDecision::Withdraw(overlap);
        }
        wait.get_or_insert(overlap);
    }
    if let Some(conflict) = conflicts.into_iter().find(|conflict| conflict.range.overlaps_subnet(&entry.subnet)) {
        return AcceptanceDecision::Withdraw(Overlap::Conflict { ours: entry.subnet, conflict: conflict.clone() });
    }
    wait.map_or(AcceptanceDecision::Accept, AcceptanceDecision::Wait)
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool { ours, pool, subnet } => write!(
                f,
                "subnet {ours} overlaps subnet {subnet} of pool {pool:?}, which came earlier: delete one of the two pools, or recreate this one with other subnets"
            ),
            Self::Conflict { ours, conflict } => {
                write!(f, "subnet {ours} overlaps {} ({}), {}", conflict.what, conflict.range, conflict.why)
            }
        }
    }
}

#[cfg(test)]
mod tests;
