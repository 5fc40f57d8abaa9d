//! Decides when to write a changed status of a pool: soon if agents or users act on the change, later if only counts
//! changed. Pure.

use std::time::Duration;

use bobbin_crds::AddressPoolStatus;
use bobbin_crds::pool::FreeWindow;
use bobbin_messages::condition::TERMINATING;

/// The maximum number of watch events per second: for the [`WritePolicy::AtInterval`] writes of all pools together, or
/// for the [`WritePolicy::Soon`] writes of one pool. Each write of a pool causes one watch event for each agent.
const MAX_WATCH_EVENTS_PER_SECOND: f64 = 2000.0;

/// The minimum time between two writes of a pool in a small cluster. Only a write with the policy
/// [`WritePolicy::Immediately`] does not wait for this time.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// When the operator writes a changed status of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WritePolicy {
    /// Nothing changed: do not write the status.
    Skip,
    /// Only counts changed: write the status when the interval since the last write is over.
    AtInterval,
    /// An agent or a user may act on the change: write the status when the short interval since the last write is over.
    Soon,
    /// The spec, its accepted or refused entries or the addresses of Nodes changed: write the status now.
    Immediately,
}

/// The minimum time between two writes that change only counts of a pool.
pub(super) fn interval(setting: Duration, nodes: usize, pools: usize) -> Duration {
    setting.max(Duration::from_secs_f64(nodes as f64 * pools as f64 / MAX_WATCH_EVENTS_PER_SECOND))
}

/// The minimum time between two writes of a pool if agents or users may act on the changes. This minimum is needed, because a
/// pool near exhaustion changes with each claim and release, and because each write reaches every agent.
pub(super) fn short_interval(nodes: usize) -> Duration {
    MIN_INTERVAL.max(Duration::from_secs_f64(nodes as f64 / MAX_WATCH_EVENTS_PER_SECOND))
}

/// Decides when to write the status `new`, if the API server stores the status `old`.
pub(super) fn decide(old: Option<&AddressPoolStatus>, new: &AddressPoolStatus) -> WritePolicy {
    let Some(old) = old else { return WritePolicy::Immediately };
    let crosses_zero = (old.blocks.free == 0) != (new.blocks.free == 0);
    if old.observed_generation != new.observed_generation
        || old.accepted_subnets != new.accepted_subnets
        || old.refused_subnets != new.refused_subnets
        || old.node_addresses != new.node_addresses
        || old.next_index != new.next_index
    {
        return WritePolicy::Immediately;
    }
    if crosses_zero
        || has_moved(old.free_window, new.free_window)
        || is_partly_claimed(old, new)
        || condition_texts(old) != condition_texts(new)
    {
        return WritePolicy::Soon;
    }
    if old == new { WritePolicy::Skip } else { WritePolicy::AtInterval }
}

/// The conditions without their times. Leaves out the message of `Terminating`, because that message consists of counts.
fn condition_texts(status: &AddressPoolStatus) -> Vec<(&str, &str, &str, &str)> {
    status
        .conditions
        .iter()
        .map(|condition| {
            let message = if condition.type_ == TERMINATING { "" } else { condition.message.as_str() };
            (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str(), message)
        })
        .collect()
}

/// Whether nodes have claimed at least an eighth as many blocks as were free in the old window. Agents that still have
/// the old window would then often pick a claimed block.
fn is_partly_claimed(old: &AddressPoolStatus, new: &AddressPoolStatus) -> bool {
    let offered = old.free_window.map_or(0, |window| window.free);
    offered > 0 && (new.blocks.claimed - old.blocks.claimed) * 8 >= offered
}

/// Whether agents that still have the old window would often find no free block. This is the case if less than half of the
/// indices of one window are also in the other window.
fn has_moved(old: Option<FreeWindow>, new: Option<FreeWindow>) -> bool {
    let (old, new) = match (old, new) {
        (None, None) => return false,
        (Some(old), Some(new)) => (old, new),
        _ => return true,
    };
    let common = (old.last.min(new.last) - old.first.max(new.first) + 1).max(0);
    common * 2 < old.last - old.first + 1 || common * 2 < new.last - new.first + 1
}
