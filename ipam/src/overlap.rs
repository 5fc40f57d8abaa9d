//! The acceptance of a pool's subnet entry: may it be carved, or does an entry that came earlier have its addresses?
//!
//! The operator writes an entry as pending, then lists all pools and blocks afresh, then asks here, then writes the answer
//! with the pool's resourceVersion. Of two overlapping entries whichever lists later sees the other, so never are both
//! accepted, whatever the clocks of two operators say: an overlapping entry that is pending *later* does not lose by this
//! look (it may have listed before ours was written), it makes ours wait until it has been decided. And an entry is not
//! written at all while another has its addresses ([`may_begin`]), so that one withdrawn does not keep the other waiting.

use std::fmt;

use crate::block::BlockRange;
use crate::subnet::SubnetPair;

/// How far the acceptance of an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Written down, not yet confirmed.
    Pending,
    /// Confirmed.
    Accepted,
}

/// An entry of some pool's `status.acceptedSubnets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The pool's UID.
    pub pool_uid: String,
    /// The pool's name.
    pub pool: String,
    /// When it was first written as pending: microseconds since 1970.
    pub since: i64,
    /// How far it has come.
    pub state: State,
    /// The addresses.
    pub subnet: SubnetPair,
}

/// What has addresses outside of pools: a block or an assignment that an earlier pool of the same name or range left, or a node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetConflict {
    /// What it is, with its kind: `AddressBlock old-7`.
    pub what: String,
    /// Its addresses.
    pub range: BlockRange,
    /// What it is to a pool, and what to do: the end of a sentence.
    pub why: &'static str,
}

impl SubnetConflict {
    /// A block or an assignment.
    pub fn left(what: String, range: BlockRange) -> Self {
        let why = "which an earlier pool left: its addresses may be in use; delete the pods that use them, or wait until it is gone";
        Self { what, range, why }
    }

    /// The address of a machine.
    pub fn of_node(what: String, range: BlockRange) -> Self {
        let why = "a route to which as a pod's would cut the node off: make the pool of subnets that no machine is in";
        Self { what, range, why }
    }
}

/// What becomes of a pending entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing else has its addresses: confirm it.
    Accept,
    /// A pending entry that came later overlaps: leave ours pending, decide the other, look again.
    Wait(Overlap),
    /// An earlier entry, or something left over, has its addresses: withdraw it, say why, try again when that is gone.
    Withdraw(Overlap),
}

/// What an entry overlaps with. As text it is the pool's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Another pool's entry.
    Pool {
        /// Our entry.
        ours: SubnetPair,
        /// The other pool's name.
        pool: String,
        /// Its entry.
        subnet: SubnetPair,
    },
    /// Something left over.
    Left {
        /// Our entry.
        ours: SubnetPair,
        /// What has them, and why that counts.
        conflict: SubnetConflict,
    },
}

/// Whether an entry of the pool may be written as pending: `Err` says what has its addresses already, pending or not.
///
/// A look at a cache is good enough; [`decide`] is what keeps two from being accepted.
pub fn may_begin<'a>(
    pool_uid: &str,
    subnet: SubnetPair,
    all: impl IntoIterator<Item = &'a Entry>,
    conflicts: impl IntoIterator<Item = &'a SubnetConflict>,
) -> Result<(), Overlap> {
    let last =
        Entry { pool_uid: pool_uid.to_owned(), pool: String::new(), since: i64::MAX, state: State::Pending, subnet };
    match decide(&last, all, conflicts) {
        Decision::Accept => Ok(()),
        Decision::Wait(overlap) | Decision::Withdraw(overlap) => Err(overlap),
    }
}

/// Decides on `entry`, given all entries of all pools (its own pool's, and itself, are passed over) and what is left over.
///
/// An entry that is accepted stays so: only ask for pending ones.
pub fn decide<'a>(
    entry: &Entry,
    all: impl IntoIterator<Item = &'a Entry>,
    conflicts: impl IntoIterator<Item = &'a SubnetConflict>,
) -> Decision {
    let mut wait = None;
    for other in all.into_iter().filter(|other| other.pool_uid != entry.pool_uid) {
        if !other.subnet.overlaps(&entry.subnet) {
            continue;
        }
        let overlap = Overlap::Pool { ours: entry.subnet, pool: other.pool.clone(), subnet: other.subnet };
        let earlier = (other.since, &other.pool_uid) < (entry.since, &entry.pool_uid);
        if other.state == State::Accepted || earlier {
            return Decision::Withdraw(overlap);
        }
        wait.get_or_insert(overlap);
    }
    if let Some(conflict) = conflicts.into_iter().find(|conflict| conflict.range.overlaps_subnet(&entry.subnet)) {
        return Decision::Withdraw(Overlap::Left { ours: entry.subnet, conflict: conflict.clone() });
    }
    wait.map_or(Decision::Accept, Decision::Wait)
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool { ours, pool, subnet } => write!(
                f,
                "subnet {ours} overlaps subnet {subnet} of pool {pool:?}, which came earlier: delete one of the two pools, or make this one anew with other subnets"
            ),
            Self::Left { ours, conflict } => {
                write!(f, "subnet {ours} overlaps {} ({}), {}", conflict.what, conflict.range, conflict.why)
            }
        }
    }
}

#[cfg(test)]
mod tests;
