//! How soon a changed status is written: what somebody waits for at once, mere counts now and then, nothing for nothing.

use std::time::Duration;

use bobbin_crds::AddressPoolStatus;
use bobbin_crds::pool::FreeWindow;
use bobbin_crds::pool::condition::TERMINATING;

/// Every write of a pool is an event for every agent: no more than this many a second, for counts.
const EVENTS_PER_SECOND: f64 = 2000.0;

/// How soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Nothing changed.
    Never,
    /// Counts changed.
    Soon,
    /// Somebody waits for it.
    Now,
}

/// The least time between two writes of counts.
pub(crate) fn interval(setting: Duration, nodes: usize, pools: usize) -> Duration {
    setting.max(Duration::from_secs_f64(nodes as f64 * pools as f64 / EVENTS_PER_SECOND))
}

/// How soon `new` is to be written over `old`.
pub(crate) fn urgency(old: Option<&AddressPoolStatus>, new: &AddressPoolStatus) -> Urgency {
    let Some(old) = old else { return Urgency::Now };
    let ran_out_or_not = (old.blocks.free == 0) != (new.blocks.free == 0);
    if old.observed_generation != new.observed_generation
        || old.accepted_subnets != new.accepted_subnets
        || ran_out_or_not
        || moved(old.free_window, new.free_window)
        || said(old) != said(new)
    {
        return Urgency::Now;
    }
    if old == new { Urgency::Never } else { Urgency::Soon }
}

/// What the conditions say; of a pool that is going, the counts in the sentence are mere counts.
fn said(status: &AddressPoolStatus) -> Vec<(&str, &str, &str, &str)> {
    status
        .conditions
        .iter()
        .map(|condition| {
            let message = if condition.type_ == TERMINATING { "" } else { condition.message.as_str() };
            (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str(), message)
        })
        .collect()
}

/// Whether agents that go by the old window would often miss: there is one now, or none any more, or less than half of
/// either is of the other.
fn moved(old: Option<FreeWindow>, new: Option<FreeWindow>) -> bool {
    let (old, new) = match (old, new) {
        (None, None) => return false,
        (Some(old), Some(new)) => (old, new),
        _ => return true,
    };
    let common = (old.last.min(new.last) - old.first.max(new.first) + 1).max(0);
    common * 2 < old.last - old.first + 1 || common * 2 < new.last - new.first + 1
}
