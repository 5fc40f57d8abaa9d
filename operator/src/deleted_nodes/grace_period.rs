//! Decides when the operator may release the blocks and addresses of a deleted node. Pure.
//!
//! After the grace period, the operator assumes that a deleted Node's machine is off or has registered its Node again.
//! Kubernetes makes the same assumption. If a Node with the same name is created again, the agent of that Node takes over
//! the blocks, even if the Node's UID differs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Departure;

/// When this operator first found each node deleted. All grace periods start again when the operator restarts.
#[derive(Debug, Default)]
pub(crate) struct GracePeriods {
    since: HashMap<Arc<str>, Instant>,
}

/// The result of one observation of the deleted nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Nodes whose grace period has ended.
    pub(crate) nodes: Vec<Arc<str>>,
    /// The time until the next grace period ends. `None` if no grace period is running.
    pub(crate) next: Option<Duration>,
}

impl GracePeriods {
    /// Notes which deleted nodes still own blocks or assignments, and returns the nodes whose grace period has ended.
    /// Also returns each node whose value in `owners` is `OutOfService`, because such a node has no grace period.
    pub(crate) fn observe(
        &mut self,
        owners: &HashMap<Arc<str>, Departure>,
        now: Instant,
        grace_period: Duration,
    ) -> Due {
        self.since.retain(|node, _| owners.contains_key(node));
        let mut due = Due::default();
        for (node, departure) in owners {
            let since = *self.since.entry(Arc::clone(node)).or_insert(now);
            let left = if *departure == Departure::OutOfService {
                Duration::ZERO
            } else {
                grace_period.saturating_sub(now.duration_since(since))
            };
            if left.is_zero() {
                due.nodes.push(Arc::clone(node));
            } else {
                due.next = Some(due.next.map_or(left, |next| next.min(left)));
            }
        }
        due.nodes.sort();
        due
    }

    /// How much of the node's grace period is left. The whole period is left if the node has not been observed.
    pub(crate) fn left(&self, node: &str, now: Instant, grace_period: Duration) -> Duration {
        self.since.get(node).map_or(grace_period, |since| grace_period.saturating_sub(now.duration_since(*since)))
    }

    /// Restarts the grace period of a node after the API server answered that the Node exists.
    pub(crate) fn restart(&mut self, node: &str) {
        self.since.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE_PERIOD: Duration = Duration::from_mins(5);

    fn owners(nodes: &[(&str, bool)]) -> HashMap<Arc<str>, Departure> {
        let departure = |is_out| if is_out { Departure::OutOfService } else { Departure::Expected };
        nodes.iter().map(|(node, out_of_service)| ((*node).into(), departure(*out_of_service))).collect()
    }

    #[test]
    fn a_deleted_node_is_due_after_its_grace_period() {
        let (mut periods, start) = (GracePeriods::default(), Instant::now());
        let n1 = owners(&[("n1", false)]);
        assert_eq!(periods.observe(&n1, start, GRACE_PERIOD), Due { nodes: vec![], next: Some(GRACE_PERIOD) });
        let later = start + Duration::from_secs(299);
        assert_eq!(periods.observe(&n1, later, GRACE_PERIOD).next, Some(Duration::from_secs(1)));
        assert_eq!(periods.observe(&n1, start + GRACE_PERIOD, GRACE_PERIOD).nodes, ["n1".into()]);
    }

    #[test]
    fn a_node_that_was_out_of_service_is_due_at_once() {
        let due = GracePeriods::default().observe(&owners(&[("n1", true)]), Instant::now(), GRACE_PERIOD);
        assert_eq!(due.nodes, ["n1".into()]);
    }

    #[test]
    fn the_grace_period_restarts_when_a_node_comes_back() {
        let (mut periods, start) = (GracePeriods::default(), Instant::now());
        let n1 = owners(&[("n1", false)]);
        periods.observe(&n1, start, GRACE_PERIOD);
        periods.observe(&owners(&[]), start + GRACE_PERIOD / 2, GRACE_PERIOD);
        assert_eq!(periods.observe(&n1, start + GRACE_PERIOD, GRACE_PERIOD).next, Some(GRACE_PERIOD));
        periods.restart("n1");
        assert_eq!(periods.observe(&n1, start + GRACE_PERIOD * 2, GRACE_PERIOD).next, Some(GRACE_PERIOD));
    }
}
