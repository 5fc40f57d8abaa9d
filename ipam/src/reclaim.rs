//! Decides when the operator may reclaim the addresses of deleted nodes. If a user deletes many Nodes by mistake, the
//! operator must not free addresses of machines that are still running.
//!
//! If too many nodes were deleted within one grace period, the operator holds these nodes: it does not reclaim their
//! addresses. A hold may end after an administrator confirmed that the machine is off, or after the hold time. Only a
//! few holds end in each grace period.

use std::time::Duration;

/// The operator holds deleted nodes only if at least this many were deleted together, within one grace period.
pub const MIN_NODES_TO_HOLD: usize = 3;
/// A tenth, as a divisor, for two rules. The operator holds nodes if more than a tenth of the nodes with blocks or
/// assignments were deleted together. In each grace period, about a tenth of the holds end.
const PART: usize = 10;

/// Whether the operator may reclaim the addresses of a deleted node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReclaimState {
    /// The node is not held. After the node's grace period, the operator may release the blocks and assignments of the
    /// node.
    Waiting,
    /// The operator must not reclaim the node's addresses.
    Held,
    /// The hold of the node has ended, so the operator may reclaim the node's addresses.
    Released {
        /// How long ago the hold ended.
        ago: Duration,
    },
}

/// A deleted node that owns blocks or assignments, or whose hold ended recently. Nodes whose deletion was expected are
/// left out, for example nodes that were cordoned before.
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
    /// How long the operator waits after the deletion of a Node before it reclaims the node's addresses.
    pub grace_period: Duration,
    /// How long a node is held if no administrator confirms that its machine is off.
    pub hold: Duration,
}

/// Returns the new state of each node, in the order of `nodes`. `owners` is the number of all nodes that own blocks or
/// assignments, including deleted nodes.
///
/// A held node stays held until its own hold ends, even if the number of deleted nodes decreases. The node that was
/// deleted first is released first.
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

/// Whether the deletion may be a mistake, because too many of the nodes with blocks or assignments were deleted
/// together.
fn is_too_many(deleted: usize, owners: usize) -> bool {
    deleted >= MIN_NODES_TO_HOLD && deleted.saturating_mul(PART) > owners
}

/// The number of holds that may end now. In each grace period, one tenth of all holds may end, rounded down. If there
/// are fewer than ten holds, one hold may end.
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
