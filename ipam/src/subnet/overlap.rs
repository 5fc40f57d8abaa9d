//! Decides whether the operator may divide a pool's subnet into blocks. The operator must not use a subnet that
//! contains addresses of another object.
//!
//! The operator writes a subnet as pending, and then lists all pools and blocks from the API server. It calls
//! [`decide`], and writes the decision with the pool's resourceVersion.
//!
//! If two operators write overlapping subnets, the operator that lists last sees both subnets. It withdraws its own
//! subnet if the other subnet is accepted or has the earlier time. Otherwise, it waits for the decision on the other
//! subnet. So at most one of the subnets is accepted. Without this wait, both could be accepted, because the times come
//! from different clocks. The operator of the "later" subnet may have listed the pools before the "earlier" subnet was
//! written, so it would accept its subnet, too.
//!
//! The operator does not write a subnet that overlaps a known subnet ([`may_begin`]), so that no pool waits for a
//! subnet that will be rejected.

use std::fmt;

use bobbin_crds::pool::Acceptance;
use bobbin_messages::Condition;
use bobbin_messages::condition::refusal;

use crate::block::BlockRange;
use crate::subnet::SubnetPair;

/// An entry of a pool's `status.acceptedSubnets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSubnet {
    /// The pool's UID.
    pub pool_uid: String,
    /// The pool's name.
    pub pool: String,
    /// When the entry was first written as pending, in microseconds since 1970.
    pub since: i64,
    /// Whether the entry is pending or accepted.
    pub state: Acceptance,
    /// The addresses of the entry.
    pub subnet: SubnetPair,
    /// Whether the pool is being deleted. The pool's addresses become free when the last address has cooled down.
    pub deleting: bool,
}

/// Addresses that no pool can have, because a Node, a Service range, an unreadable object or an object of a deleted
/// pool uses these addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetConflict {
    /// Kind and name of the object that uses the addresses, for example `AddressBlock old-7`.
    pub what: String,
    /// The addresses that the object uses.
    pub range: BlockRange,
    /// The condition of a pool whose subnet has the addresses. The reason of the condition is also the `reason` of the
    /// refused subnet.
    pub refusal: &'static Condition,
    /// Why a pool can't have these addresses, and what to do: whole sentences, the last one without a full stop.
    pub why: &'static str,
}

impl SubnetConflict {
    /// The conflict with a block or an assignment of a deleted pool.
    pub fn leftover(what: String, range: BlockRange) -> Self {
        let why = "A deleted pool left this object behind, and pods may still use its addresses. Delete these pods, or wait until the object is deleted";
        Self { what, range, refusal: &refusal::LEFTOVER_OBJECT, why }
    }

    /// The conflict with an address of a node.
    pub fn of_node(what: String, range: BlockRange) -> Self {
        let why = "A pod with a node's address would cut the node off from the network. Choose subnets without node addresses for the pool";
        Self { what, range, refusal: &refusal::NODE_ADDRESS, why }
    }

    /// The conflict with a range from which Services get their addresses.
    pub fn of_services(what: String, range: BlockRange) -> Self {
        let why = "A node with a block of these addresses could not reach the Services. Choose subnets outside of all ServiceCIDRs";
        Self { what, range, refusal: &refusal::SERVICE_RANGE, why }
    }

    /// The conflict with an object that can't be decoded. This object may use the addresses.
    pub fn unreadable(what: String, range: BlockRange) -> Self {
        let why = "The object has invalid fields, so Bobbin can't tell whether the addresses of this range are in use. Correct or delete the object. The object's event says what is wrong";
        Self { what, range, refusal: &refusal::UNREADABLE_OBJECT, why }
    }
}

/// What the operator should do with a pending subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptanceDecision {
    /// No other object has addresses of the subnet: accept the subnet.
    Accept,
    /// The subnet overlaps another subnet that became pending later. Leave the subnet pending until the operator has decided
    /// on the later subnet.
    Wait(Overlap),
    /// Another pool's earlier or accepted subnet, or another object, has addresses of this subnet. Withdraw the subnet,
    /// report why, and retry later.
    Withdraw(Overlap),
}

/// An overlap of a subnet with another pool's subnet or another object's addresses. The operator writes the overlap
/// into a condition of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The subnet overlaps a subnet of another pool.
    Pool {
        /// The subnet of this pool.
        ours: SubnetPair,
        /// The name of the other pool.
        pool: String,
        /// The subnet of the other pool.
        subnet: SubnetPair,
        /// Whether the other pool is being deleted.
        deleting: bool,
    },
    /// The subnet overlaps addresses that an object other than a pool uses.
    Conflict {
        /// The subnet of this pool.
        ours: SubnetPair,
        /// The object that uses the addresses.
        conflict: SubnetConflict,
    },
}

impl Overlap {
    /// The subnet of this pool that is refused.
    pub fn ours(&self) -> SubnetPair {
        match self {
            Self::Pool { ours, .. } | Self::Conflict { ours, .. } => *ours,
        }
    }

    /// The condition of the pool. Its reason names the kind of object that has the addresses.
    pub fn refusal(&self) -> &'static Condition {
        match self {
            Self::Pool { .. } => &refusal::POOL_OVERLAP,
            Self::Conflict { conflict, .. } => conflict.refusal,
        }
    }
}

/// Decides whether the operator may write a subnet of the pool as pending. `all` and `conflicts` may come from an
/// outdated cache, because the operator calls [`decide`] with fresh lists before it accepts the subnet.
///
/// # Errors
/// Fails if another pool's pending or accepted subnet, or another object, already has addresses of this subnet.
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
        deleting: false,
    };
    match decide(&last, all, conflicts) {
        AcceptanceDecision::Accept => Ok(()),
        AcceptanceDecision::Wait(overlap) | AcceptanceDecision::Withdraw(overlap) => Err(overlap),
    }
}

/// Decides on a pending subnet, given the subnets of all pools and the conflicts. Other subnets of the same pool are ignored.
///
/// Call this only for pending subnets, because an accepted subnet must stay accepted.
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
        let overlap = Overlap::Pool {
            ours: entry.subnet,
            pool: other.pool.clone(),
            subnet: other.subnet,
            deleting: other.deleting,
        };
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
            Self::Pool { ours, pool, subnet, deleting: true } => write!(
                f,
                "subnet {ours} overlaps the earlier subnet {subnet} of pool {pool:?}, which is being deleted. The operator accepts subnet {ours} after pool {pool:?} is gone. The deletion waits until all addresses of that pool are free and have cooled down. To see what the deletion waits for, run: kubectl describe addresspool {pool}"
            ),
            Self::Pool { ours, pool, subnet, .. } => write!(
                f,
                "subnet {ours} overlaps the earlier subnet {subnet} of pool {pool:?}: change or remove subnet {ours}, or delete pool {pool:?}"
            ),
            Self::Conflict { ours, conflict } => {
                write!(f, "subnet {ours} overlaps {} ({}). {}", conflict.what, conflict.range, conflict.why)
            }
        }
    }
}

#[cfg(test)]
mod tests;
