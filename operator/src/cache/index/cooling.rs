//! The released addresses of one pool that still cool down.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Releases within this time share one start of the cool-down. Their cool-downs then end together, so the operator does
/// not write the status for each of these addresses.
const BATCH: Duration = Duration::from_millis(500);

/// `order` may have this many outdated entries, plus one more for each address that cools down.
const MAX_OLD_ENTRIES: usize = 64;

/// When each address was released. An address that is assigned again no longer cools.
#[derive(Debug, Default)]
pub(in crate::cache) struct Cooling {
    /// The releases in the order of their times. An entry is outdated if `since` has no equal entry.
    order: VecDeque<(Instant, IpAddr)>,
    since: HashMap<IpAddr, Instant>,
}

impl Cooling {
    /// Starts the cool-down of a released address.
    pub(in crate::cache) fn released(&mut self, address: IpAddr) {
        let last = self.order.back().map(|(when, _)| *when).filter(|when| when.elapsed() < BATCH);
        let when = last.unwrap_or_else(Instant::now);
        self.order.push_back((when, address));
        self.since.insert(address, when);
        // Only the leader calls `count`, which removes old entries. Without this limit, `order` would grow forever in a
        // standby.
        if self.order.len() > 2 * self.since.len() + MAX_OLD_ENTRIES {
            let since = &self.since;
            self.order.retain(|(when, address)| since.get(address) == Some(when));
        }
    }

    /// Ends the cool-down of an address that is assigned again.
    pub(in crate::cache) fn assigned(&mut self, address: IpAddr) {
        self.since.remove(&address);
    }

    /// Returns how many addresses cool down, and the time until the next one has cooled down.
    pub(in crate::cache) fn count(&mut self, cooldown: Duration) -> (u64, Option<Duration>) {
        while let Some((when, address)) = self.order.front().copied() {
            let counts = self.since.get(&address) == Some(&when);
            if counts && when.elapsed() < cooldown {
                return (self.since.len() as u64, Some(cooldown.saturating_sub(when.elapsed())));
            }
            if counts {
                self.since.remove(&address);
            }
            self.order.pop_front();
        }
        (0, None)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn releases_that_nobody_counts_take_no_more_memory_than_the_pool_has_addresses() {
        let mut cooling = Cooling::default();
        for round in 0..1000_u32 {
            let address = IpAddr::V4(Ipv4Addr::from(round % 4));
            cooling.released(address);
            cooling.order.back_mut().expect("there is an entry").0 += Duration::from_nanos(u64::from(round));
            let when = cooling.order.back().expect("there is an entry").0;
            cooling.since.insert(address, when);
        }
        assert!(cooling.order.len() <= 2 * 4 + MAX_OLD_ENTRIES + 1, "{}", cooling.order.len());
        assert_eq!(cooling.count(Duration::from_mins(1)).0, 4);
    }
}
