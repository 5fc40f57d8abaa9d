//! Decides which addresses count as addresses of Nodes. An address counts while a Node reports it, and for one grace period
//! afterwards. Pure.
//!
//! The grace period has two reasons. A machine can keep running after the deletion of its Node. A kubelet that registers
//! again can report no addresses for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::MAX_RESERVED_ADDRESSES;

/// Why an address counts as an address of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// This Node reports the address.
    Reported(Arc<str>),
    /// This Node reported the address earlier, but does not report it now.
    Earlier(Arc<str>),
    /// A pool's status listed the address when this operator became the leader.
    Listed,
}

/// The addresses of all Nodes. At most [`MAX_RESERVED_ADDRESSES`] addresses of one Node count, even if the Node keeps reporting new
/// addresses.
#[derive(Debug, Default)]
pub(super) struct NodeAddresses {
    reported: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// The addresses that each Node reported before, with the time when the operator noticed that they were missing.
    earlier: BTreeMap<Arc<str>, BTreeMap<IpAddr, Instant>>,
    /// The addresses that the status of a pool listed when this operator became the leader. The value is the start of the
    /// grace period.
    listed: BTreeMap<IpAddr, Instant>,
    /// For each address, the strongest reason why it counts as a Node address. Derived from the other fields.
    sightings: BTreeMap<IpAddr, Sighting>,
}

/// The result of [`NodeAddresses::forget`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Whether an address no longer counts.
    pub(super) any: bool,
    /// How long until the next grace period ends; `None` if no grace period is running.
    pub(super) next: Option<Duration>,
}

impl NodeAddresses {
    /// Replaces the addresses that Nodes report. If an address is no longer reported, its grace period begins.
    pub(super) fn observe(&mut self, reported: BTreeMap<Arc<str>, BTreeSet<IpAddr>>, now: Instant) {
        let before = std::mem::replace(&mut self.reported, reported);
        for (node, addresses) in before {
            let still = self.reported.get(&node);
            let missing = addresses.into_iter().filter(|address| !still.is_some_and(|still| still.contains(address)));
            let missing: Vec<_> = missing.map(|address| (address, now)).collect();
            self.earlier.entry(node).or_default().extend(missing);
        }
        for (node, earlier) in &mut self.earlier {
            let reported = self.reported.get(node);
            earlier.retain(|address, _| !reported.is_some_and(|reported| reported.contains(address)));
            let room = MAX_RESERVED_ADDRESSES.saturating_sub(reported.map_or(0, BTreeSet::len));
            while earlier.len() > room {
                let Some(oldest) = earlier.iter().min_by_key(|(address, since)| (**since, **address)) else { break };
                let oldest = *oldest.0;
                earlier.remove(&oldest);
            }
        }
        self.earlier.retain(|_, earlier| !earlier.is_empty());
        self.derive_sightings();
    }

    /// Keeps the addresses from a pool's status until their grace period ends.
    pub(super) fn inherit(&mut self, listed: impl IntoIterator<Item = IpAddr>, now: Instant) {
        self.listed.extend(listed.into_iter().map(|address| (address, now)));
        self.derive_sightings();
    }

    /// Forgets the addresses whose grace period has ended, except those of Nodes for which `is_kept` is true. If
    /// `keep_listed` is true, the addresses from the status of pools stay, too.
    pub(super) fn forget(
        &mut self,
        now: Instant,
        grace_period: Duration,
        is_kept: impl Fn(&str) -> bool,
        keep_listed: bool,
    ) -> Forgotten {
        let mut forgotten = Forgotten { any: false, next: None };
        let mut stays = |since: &Instant, is_kept: bool| {
            let left = grace_period.saturating_sub(now.saturating_duration_since(*since));
            if left.is_zero() {
                forgotten.any |= !is_kept;
                return is_kept;
            }
            forgotten.next = Some(forgotten.next.map_or(left, |next| next.min(left)));
            true
        };
        for (node, earlier) in &mut self.earlier {
            let is_kept = is_kept(node);
            earlier.retain(|_, since| stays(since, is_kept));
        }
        self.earlier.retain(|_, earlier| !earlier.is_empty());
        self.listed.retain(|_, since| stays(since, keep_listed));
        if forgotten.any {
            self.derive_sightings();
        }
        forgotten
    }

    /// The addresses in a range, each with the reason why it counts.
    pub(super) fn in_range(&self, range: RangeInclusive<IpAddr>) -> impl Iterator<Item = (IpAddr, &Sighting)> {
        self.sightings.range(range).map(|(address, sighting)| (*address, sighting))
    }

    /// The addresses that count as Node addresses although no Node reports them now.
    pub(super) fn unreported(&self) -> impl Iterator<Item = (IpAddr, &Sighting)> {
        let all = self.sightings.iter().map(|(address, sighting)| (*address, sighting));
        all.filter(|(_, sighting)| !matches!(sighting, Sighting::Reported(_)))
    }

    fn derive_sightings(&mut self) {
        self.sightings = self.listed.keys().map(|address| (*address, Sighting::Listed)).collect();
        for (node, addresses) in &self.earlier {
            self.sightings.extend(addresses.keys().map(|address| (*address, Sighting::Earlier(Arc::clone(node)))));
        }
        for (node, addresses) in &self.reported {
            self.sightings.extend(addresses.iter().map(|address| (*address, Sighting::Reported(Arc::clone(node)))));
        }
    }
}

#[cfg(test)]
mod tests;
