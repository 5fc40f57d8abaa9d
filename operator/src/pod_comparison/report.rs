//! Publishes confirmed differences as metrics and in the log. A difference is confirmed if two comparisons in a row
//! find it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bobbin_ipam::Family;
use k8s_openapi::jiff::Timestamp;

use super::comparison::{Difference, Kind};
use super::pools::Pools;
use crate::metrics::{FamilyLabels, OperatorMetrics};

/// The maximum number of new differences of each kind that one comparison logs. The metrics count all differences.
const MAX_LOGGED: usize = 10;

/// The results of earlier comparisons, and the metrics.
pub(super) struct Report {
    metrics: OperatorMetrics,
    /// The differences of the last comparison. `None` before the first comparison.
    last: Option<HashSet<Difference>>,
    /// The differences that were in both of the last two comparisons.
    confirmed: HashSet<Difference>,
    /// The pools and families that have metrics.
    exported: HashSet<(Arc<str>, Family)>,
}

impl Report {
    pub(super) fn new(metrics: OperatorMetrics) -> Self {
        Self { metrics, last: None, confirmed: HashSet::new(), exported: HashSet::new() }
    }

    /// Forgets all comparisons and removes the metrics, because this operator does not lead.
    pub(super) fn reset(&mut self) {
        self.last = None;
        self.confirmed.clear();
        self.export(&BTreeMap::new());
    }

    /// Takes the result of a comparison.
    pub(super) fn update(&mut self, differences: HashSet<Difference>, pools: &Pools) {
        self.metrics.pod_comparison_timestamp_seconds.set(Timestamp::now().as_second());
        let Some(last) = self.last.replace(differences) else { return };
        let again = self.last.iter().flatten().filter(|difference| last.contains(difference));
        let confirmed: HashSet<Difference> = again.cloned().collect();
        self.export(&figures(&confirmed, pools));
        for kind in [Kind::HeldNotUsed, Kind::UsedNotHeld] {
            log(kind, confirmed.difference(&self.confirmed).filter(|difference| difference.kind == kind));
        }
        if confirmed.is_empty() && !self.confirmed.is_empty() {
            tracing::info!("the assignments and the pods agree about all addresses again");
        }
        self.confirmed = confirmed;
    }

    fn export(&mut self, figures: &BTreeMap<(Arc<str>, Family), Figures>) {
        let labels = |(pool, family): &(Arc<str>, Family)| FamilyLabels {
            pool: pool.to_string(),
            family: match family {
                Family::Ipv4 => "ipv4",
                Family::Ipv6 => "ipv6",
            },
        };
        for (key, figures) in figures {
            self.metrics.held_not_used.get_or_create(&labels(key)).set(figures.held_not_used);
            self.metrics.used_not_held.get_or_create(&labels(key)).set(figures.used_not_held);
        }
        for key in self.exported.iter().filter(|key| !figures.contains_key(key)) {
            self.metrics.held_not_used.remove(&labels(key));
            self.metrics.used_not_held.remove(&labels(key));
        }
        self.exported = figures.keys().cloned().collect();
    }
}

/// The two figures of one address family of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    held_not_used: i64,
    used_not_held: i64,
}

/// The figures of each pool and family. The figures of a pool without differences are zero.
fn figures(confirmed: &HashSet<Difference>, pools: &Pools) -> BTreeMap<(Arc<str>, Family), Figures> {
    let mut figures: BTreeMap<_, Figures> = pools.families().map(|key| (key, Figures::default())).collect();
    for difference in confirmed {
        let key = (Arc::clone(&difference.pool), Family::from(difference.address));
        let figures = figures.entry(key).or_default();
        match difference.kind {
            Kind::HeldNotUsed => figures.held_not_used += 1,
            Kind::UsedNotHeld => figures.used_not_held += 1,
        }
    }
    figures
}

fn log<'a>(kind: Kind, new: impl Iterator<Item = &'a Difference>) {
    let mut new: Vec<&Difference> = new.collect();
    new.sort_unstable();
    for Difference { pool, address, pod, .. } in new.iter().take(MAX_LOGGED) {
        let (pool, pod, uid) = (&**pool, format!("{}/{}", pod.namespace, pod.name), &*pod.uid);
        match kind {
            Kind::HeldNotUsed => tracing::warn!(
                %address, pool, pod, uid,
                "an IPAssignment holds an address that its pod does not use. If this lasts, read the log of the agent on the assignment's node"
            ),
            Kind::UsedNotHeld => tracing::warn!(
                %address, pool, pod, uid,
                "a pod uses an address of a pool, but has no IPAssignment with this address. If this lasts, delete the pod, so that its replacement gets another address"
            ),
        }
    }
    let more = new.len().saturating_sub(MAX_LOGGED);
    if more > 0 {
        tracing::warn!(
            more,
            ?kind,
            "the operator found more differences between assignments and pods than it logs; the metrics count all differences"
        );
    }
}

#[cfg(test)]
mod tests;
