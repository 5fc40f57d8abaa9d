//! Decides which events about deleted nodes and their release are due, and writes their texts. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::list_names;
use bobbin_messages::Event;
use bobbin_messages::event::operator;
use k8s_openapi::jiff::Timestamp;

use crate::cache::{Departure, Holdings};

/// What to do if a hold delays the release.
const CONFIRM_HINT: &str = "If many Nodes are deleted together, the operator waits longer. Then the event ReclaimHeld has the command that releases the blocks";
/// The minimum time between two reports of one kind. A node that is found during this time waits for the next report.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// A report about at most this many nodes has one event per node. A report about more nodes is a single event. So the
/// operator sends at most this many events of one kind in [`REPORT_INTERVAL`].
const MAX_NODE_EVENTS: usize = 5;

/// Which nodes the operator has reported, and which nodes wait for a report.
#[derive(Debug, Default)]
pub(super) struct NodeReports {
    /// The deleted nodes that the operator has reported or that wait for their report.
    known: HashSet<Arc<str>>,
    deleted: Waiting<Deleted>,
    released: Waiting<Holdings>,
}

/// What an event says about a deleted node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deleted {
    departure: Departure,
    /// When the grace period of the node ends.
    ends_at: Timestamp,
    /// Whether the operator already holds the node, because many Nodes were deleted together.
    held: bool,
}

/// The nodes that wait for a report of one kind.
#[derive(Debug)]
struct Waiting<T> {
    nodes: BTreeMap<Arc<str>, T>,
    last: Option<Instant>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { nodes: BTreeMap::new(), last: None }
    }
}

impl<T> Waiting<T> {
    /// The nodes to report now, or the time until their report is due.
    fn take(&mut self, now: Instant) -> Result<BTreeMap<Arc<str>, T>, Option<Duration>> {
        if self.nodes.is_empty() {
            return Err(None);
        }
        let left = self.last.map_or(Duration::ZERO, |last| REPORT_INTERVAL.saturating_sub(now.duration_since(last)));
        if !left.is_zero() {
            return Err(Some(left));
        }
        self.last = Some(now);
        Ok(std::mem::take(&mut self.nodes))
    }
}

/// One event. `node` is `None` for an event about many nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeEvent {
    pub(super) node: Option<Arc<str>>,
    pub(super) event: &'static Event,
    /// True if an address is affected; false if the event is only about empty blocks.
    pub(super) is_warning: bool,
    pub(super) note: String,
}

/// The events that are due, and the time until the next events are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DueEvents {
    pub(super) events: Vec<NodeEvent>,
    pub(super) next: Option<Duration>,
}

impl NodeReports {
    /// Notes the deleted nodes that own something. A node that exists again is reported again after its next deletion.
    /// The functions describe a node:
    ///
    /// - `is_reported`: whether an earlier leader has reported the deletion.
    /// - `ends_at`: the end of the grace period.
    /// - `is_held`: whether the operator holds the node.
    pub(super) fn observe(
        &mut self,
        deleted: &HashMap<Arc<str>, Departure>,
        is_reported: impl Fn(&str) -> bool,
        ends_at: impl Fn(&str) -> Timestamp,
        is_held: impl Fn(&str) -> bool,
    ) {
        self.known.retain(|node| deleted.contains_key(node));
        self.deleted.nodes.retain(|node, _| deleted.contains_key(node));
        // Update the reports that are not due yet. Further deletions may have made the operator hold these nodes.
        for (node, report) in &mut self.deleted.nodes {
            report.held = is_held(node);
        }
        for (node, departure) in deleted {
            if self.known.insert(Arc::clone(node)) && !is_reported(node) {
                let report = Deleted { departure: *departure, ends_at: ends_at(node), held: is_held(node) };
                self.deleted.nodes.insert(Arc::clone(node), report);
            }
        }
    }

    /// Notes what the operator has released of a deleted node.
    pub(super) fn released(&mut self, node: &Arc<str>, released: &Holdings) {
        if released.blocks > 0 || released.addresses > 0 {
            self.released.nodes.entry(Arc::clone(node)).or_default().add(released);
        }
    }

    /// Forgets everything, because another operator may lead now.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.deleted.nodes.clear();
        self.released.nodes.clear();
    }

    /// Takes the events that are due. `holdings` returns what each of the given nodes owns.
    pub(super) fn due(
        &mut self,
        now: Instant,
        grace_period: Duration,
        holdings: impl FnOnce(&BTreeSet<Arc<str>>) -> HashMap<Arc<str>, Holdings>,
    ) -> DueEvents {
        let mut due = DueEvents::default();
        match self.deleted.take(now) {
            Ok(nodes) => due.events.extend(deleted_events(&nodes, grace_period, holdings)),
            Err(next) => due.next = next,
        }
        match self.released.take(now) {
            Ok(nodes) => due.events.extend(released_events(&nodes)),
            Err(next) => due.next = due.next.into_iter().chain(next).min(),
        }
        due
    }
}

fn deleted_events(
    nodes: &BTreeMap<Arc<str>, Deleted>,
    grace_period: Duration,
    holdings: impl FnOnce(&BTreeSet<Arc<str>>) -> HashMap<Arc<str>, Holdings>,
) -> Vec<NodeEvent> {
    let names: BTreeSet<Arc<str>> = nodes.keys().cloned().collect();
    let holdings = holdings(&names);
    let nothing = Holdings::default();
    let of = |node: &Arc<str>| holdings.get(node).unwrap_or(&nothing);
    let event = |node: Option<Arc<str>>, is_warning: bool, note: String| NodeEvent {
        node,
        event: &operator::NODE_DELETED,
        is_warning,
        note,
    };
    if nodes.len() <= MAX_NODE_EVENTS {
        let one = |(node, deleted): (&Arc<str>, &Deleted)| {
            let held = of(node);
            event(Some(Arc::clone(node)), held.addresses > 0, deleted_note(node, *deleted, held))
        };
        return nodes.iter().map(one).collect();
    }
    let mut all = Holdings::default();
    for node in &names {
        all.add(of(node));
    }
    let list = list_names(names.iter().take(MAX_NODE_EVENTS), names.len());
    if nodes.values().any(|deleted| deleted.held) {
        let note = format!(
            "{} Nodes were deleted: {list}. The operator does not release the nodes' {all} yet, because many Nodes were deleted together. If the machines run, restart kubelet on these nodes: it registers the Nodes again, and the nodes keep their blocks and addresses. If the machines are off, run the command in the event ReclaimHeld, which releases the blocks and addresses",
            nodes.len(),
        );
        return vec![event(None, all.addresses > 0, note)];
    }
    let note = format!(
        "{} Nodes were deleted: {list}. The operator releases the nodes' {all} {} s after the deletion. If the machines run, restart kubelet on these nodes before that time: it registers the Nodes again, and the nodes keep their blocks and addresses. {CONFIRM_HINT}",
        nodes.len(),
        grace_period.as_secs(),
    );
    vec![event(None, all.addresses > 0, note)]
}

fn deleted_note(node: &str, deleted: Deleted, held: &Holdings) -> String {
    if deleted.departure == Departure::OutOfService {
        return format!(
            "Node {node} was deleted while it was out of service, so the operator releases the node's {held} at once"
        );
    }
    if deleted.held {
        return format!(
            "Node {node} was deleted. The operator does not release the node's {held} yet, because many Nodes were deleted together. If the machine runs, restart kubelet on the node: it registers the Node again, and the node keeps its blocks and addresses. If the machine is off, run the command in the event ReclaimHeld, which releases the blocks and addresses"
        );
    }
    let end = Timestamp::from_second(deleted.ends_at.as_second()).unwrap_or(deleted.ends_at);
    format!(
        "Node {node} was deleted, so the operator releases the node's {held} at {end}. If the machine runs, restart kubelet on the node before that time: it registers the Node again, and the node keeps its blocks and addresses. {CONFIRM_HINT}"
    )
}

fn released_events(nodes: &BTreeMap<Arc<str>, Holdings>) -> Vec<NodeEvent> {
    let event = |node: Option<Arc<str>>, is_warning: bool, note: String| NodeEvent {
        node,
        event: &operator::NODE_ADDRESSES_RELEASED,
        is_warning,
        note,
    };
    if nodes.len() <= MAX_NODE_EVENTS {
        let one = |(node, released): (&Arc<str>, &Holdings)| {
            let note = format!(
                "the operator released {released} of node {node}, because Node {node} was deleted. Other pods may now get the released addresses. If the machine still runs pods, end those pods, or turn the machine off"
            );
            event(Some(Arc::clone(node)), released.addresses > 0, note)
        };
        return nodes.iter().map(one).collect();
    }
    let mut all = Holdings::default();
    for released in nodes.values() {
        all.add(released);
    }
    let note = format!(
        "the operator released {all} of {} nodes, because these Nodes were deleted: {}. Other pods may now get the released addresses. If the machines still run pods, end those pods, or turn the machines off",
        nodes.len(),
        list_names(nodes.keys().take(MAX_NODE_EVENTS), nodes.len()),
    );
    vec![event(None, all.addresses > 0, note)]
}

#[cfg(test)]
mod tests;
