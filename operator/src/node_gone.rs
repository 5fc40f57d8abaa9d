//! When what a deleted node owns is free. Pure; `reclaim` asks, looks at the Node itself, and frees.
//!
//! A machine whose Node was deleted is off, or in contact again within the wait: Kubernetes' own assumption, and the only one
//!. A Node that is there under the same name, whatever its UID, has an agent that takes its blocks up again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Since when each gone node has been seen gone. After a restart of the operator the wait begins anew.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    since: HashMap<Arc<str>, Instant>,
}

/// What follows from one look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Nodes to look at live, and to free if that finds them gone too.
    pub(crate) now: Vec<Arc<str>>,
    /// When the next is due.
    pub(crate) next: Option<Duration>,
}

impl Waiting {
    /// Takes a look: the owners that are gone, and whether each was out of service when it went.
    pub(crate) fn look(&mut self, gone: &HashMap<Arc<str>, bool>, now: Instant, wait: Duration) -> Due {
        self.since.retain(|node, _| gone.contains_key(node));
        let mut due = Due::default();
        for (node, out_of_service) in gone {
            let since = *self.since.entry(Arc::clone(node)).or_insert(now);
            let rest = if *out_of_service { Duration::ZERO } else { wait.saturating_sub(now.duration_since(since)) };
            if rest.is_zero() {
                due.now.push(Arc::clone(node));
            } else {
                due.next = Some(due.next.map_or(rest, |next| next.min(rest)));
            }
        }
        due.now.sort();
        due
    }

    /// The Node is there after all: its wait begins anew should it go again.
    pub(crate) fn is_back(&mut self, node: &str) {
        self.since.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_mins(5);

    fn gone(nodes: &[(&str, bool)]) -> HashMap<Arc<str>, bool> {
        nodes.iter().map(|(node, out)| ((*node).into(), *out)).collect()
    }

    #[test]
    fn a_gone_node_is_due_after_the_wait_and_not_before() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        assert_eq!(waiting.look(&gone(&[("n1", false)]), start, WAIT), Due { now: vec![], next: Some(WAIT) });
        let later = start + Duration::from_secs(299);
        assert_eq!(waiting.look(&gone(&[("n1", false)]), later, WAIT).next, Some(Duration::from_secs(1)));
        assert_eq!(waiting.look(&gone(&[("n1", false)]), start + WAIT, WAIT).now, ["n1".into()]);
    }

    #[test]
    fn a_node_that_left_out_of_service_is_due_at_once() {
        assert_eq!(Waiting::default().look(&gone(&[("n1", true)]), Instant::now(), WAIT).now, ["n1".into()]);
    }

    #[test]
    fn a_node_that_came_back_waits_anew() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        waiting.look(&gone(&[("n1", false)]), start, WAIT);
        waiting.look(&gone(&[]), start + WAIT / 2, WAIT);
        assert_eq!(waiting.look(&gone(&[("n1", false)]), start + WAIT, WAIT).next, Some(WAIT));
        waiting.is_back("n1");
        assert_eq!(waiting.look(&gone(&[("n1", false)]), start + WAIT * 2, WAIT).next, Some(WAIT));
    }
}
