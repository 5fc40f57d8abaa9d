//! Decides which deleted nodes' addresses may be reclaimed, so that one mistaken command does not free the addresses of many
//! machines that still run.
//!
//! The reclaim of a deleted node is held if too many nodes were deleted within one grace period. A hold ends when an
//! administrator confirms the deletion, or after the hold time. Then a few nodes are reclaimed in each grace period.

use std::time::Duration;

/// Fewer deleted nodes than this are never held.
pub const MIN_NODES_TO_HOLD: usize = 3;
/// The nodes are held if more than a tenth of the owning nodes were deleted together. After the hold, a tenth of the held
/// nodes is reclaimed in each grace period.
const PART: usize = 10;

/// How far the reclaim of a deleted node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReclaimState {
    /// The operator waits until the node's grace period has passed. Then it may release what the node owned.
    Waiting,
    /// The node must not be reclaimed.
    Held,
    /// The node was held, the hold has ended, and the node may be reclaimed.
    Released {
        /// How long ago the hold ended.
        ago: Duration,
    },
}

/// A deleted node that owns blocks or assignments, or whose hold ended lately. Nodes whose deletion was expected, for example
/// because they were cordoned, are not in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedNode {
    /// How long ago the Node was deleted.
    pub age: Duration,
    /// Whether an administrator confirmed that the machine is off.
    pub confirmed: bool,
    /// The state before the decision.
    pub state: ReclaimState,
}

/// The times of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTimes {
    /// How long a Node must be deleted before it is reclaimed.
    pub grace_period: Duration,
    /// How long a node is held if no administrator confirms that its machine is off.
    pub hold: Duration,
}

/// The state of each node after this decision, in the order of `nodes`. `owners` is the number of nodes that own blocks or
/// assignments, whether deleted or not.
///
/// A held node stays held until its own hold ends, even if fewer nodes are deleted later. The holds of the nodes that were
/// deleted first end first.
#[must_use]
pub fn decide(nodes: &[DeletedNode], owners: usize, times: HoldTimes) -> Vec<ReclaimState> {
    let mut states: Vec<ReclaimState> = nodes.iter().map(|node| node.state).collect();
    let mut by_age: Vec<usize> = (0..nodes.len()).filter(|&at| !is_released(states[at])).collect();
    by_age.sort_by_key(|&at| nodes[at].age);
    for (position, &youngest) in by_age.iter().enumerate() {
        let oldest = nodes[youngest].age.saturating_add(times.grace_period);
        let together = by_age[position..].iter().take_while(|&&at| nodes[at].age <= oldest);
        let together: Vec<usize> = together.copied().collect();
        if is_too_many(together.len(), owners) {
            for at in together {
                states[at] = ReclaimState::Held;
            }
        }
    }
    let oldest_first = by_age.iter().rev().copied().filter(|&at| states[at] == ReclaimState::Held);
    let hold = |at: usize| if nodes[at].confirmed { times.grace_period } else { times.hold.max(times.grace_period) };
    let may_end = oldest_first.filter(|&at| nodes[at].age >= hold(at));
    let ended: Vec<usize> = may_end.take(quota(&states, times.grace_period)).collect();
    for at in ended {
        states[at] = ReclaimState::Released { ago: Duration::ZERO };
    }
    states
}

/// Whether so many of the owning nodes were deleted together that the deletion may be a mistake.
fn is_too_many(deleted: usize, owners: usize) -> bool {
    deleted >= MIN_NODES_TO_HOLD && deleted.saturating_mul(PART) > owners
}

/// How many holds may end now. In each grace period, a tenth of all holds may end, but at least one.
fn quota(states: &[ReclaimState], grace_period: Duration) -> usize {
    let count = |is: &dyn Fn(&ReclaimState) -> bool| states.iter().filter(|state| is(state)).count();
    let all = count(&|state| *state != ReclaimState::Waiting);
    let recent = count(&|state| matches!(state, ReclaimState::Released { ago } if *ago < grace_period));
    (all / PART).max(1).saturating_sub(recent)
}

fn is_released(state: ReclaimState) -> bool {
    matches!(state, ReclaimState::Released { .. })
}

#[cfg(test)]
mod tests;
