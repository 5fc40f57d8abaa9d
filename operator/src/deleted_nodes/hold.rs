//! Holds deleted nodes if many Nodes were deleted together: the operator does not release a held node. A hold ends when
//! an administrator confirms the deletions or the hold time is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::list_names;
use bobbin_ipam::reclaim::HoldTimes;
use bobbin_messages::event::operator;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::config_map::{CONFIRMATION, DeletedNodesConfigMap, NAME, Stored};
use super::deletions::Deletions;
use crate::cache::{Departure, NodeOwners};
use crate::context::Context;

/// How often the operator reads the ConfigMap while a deleted node owns something, to find an administrator's
/// confirmation.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How often the operator repeats its report about an unchanged hold.
const REMINDER_INTERVAL: Duration = Duration::from_mins(10);
/// How long a leader may take to report a deletion that it has stored.
const REPORT_TIME: Duration = Duration::from_secs(30);
/// A message names at most this many nodes.
const MAX_NAMED_NODES: usize = 5;

/// The state of a hold between two passes.
pub(super) struct ReclaimHold {
    context: Arc<Context>,
    config_map: DeletedNodesConfigMap,
    clock: SteadyClock,
    /// Whether the ConfigMap may have entries.
    may_have_entries: bool,
    /// The last decision: its time, the deleted nodes at that time, and the permits.
    decided: Option<(Instant, HashMap<Arc<str>, Departure>, Permits)>,
    reported: Option<(String, Instant)>,
}

/// Says which deleted nodes the operator may release.
#[derive(Clone, Default)]
pub(super) struct Permits {
    /// The entries that the operator computed. `None` if the operator could not read the ConfigMap. The operator then
    /// releases only nodes whose deletion was expected.
    deletions: Option<Deletions>,
    /// The entries that the ConfigMap certainly contains. The operator releases a held node only after these entries
    /// contain the end of its hold.
    stored: Deletions,
    /// The entries that the ConfigMap contained before the operator computed `deletions`.
    earlier: Deletions,
}

impl Permits {
    /// Whether the operator may release the node after the node's grace period.
    pub(super) fn may_release(&self, node: &str, departure: Departure) -> bool {
        if matches!(departure, Departure::Expected | Departure::OutOfService) {
            return true;
        }
        self.deletions.as_ref().is_some_and(|deletions| {
            deletions.may_release(node) && (!deletions.is_released(node) || self.stored.is_released(node))
        })
    }

    /// Whether the operator holds the node, because many Nodes were deleted together.
    pub(super) fn holds(&self, node: &str) -> bool {
        self.deletions.as_ref().is_some_and(|deletions| deletions.held().any(|(held, _)| held == node))
    }

    /// Whether an earlier leader has certainly reported the node's deletion. A leader reports a deletion within
    /// [`REPORT_TIME`] after it has stored the deletion.
    pub(super) fn was_reported(&self, node: &str, now: Timestamp) -> bool {
        let report_time = SignedDuration::from_secs(REPORT_TIME.as_secs().cast_signed());
        self.earlier.open_since(node).is_some_and(|since| now.duration_since(since) > report_time)
    }
}

impl ReclaimHold {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let config_map = DeletedNodesConfigMap::new(&context.clients.requests, &context.namespace);
        Self { context, config_map, clock: SteadyClock::start(), may_have_entries: true, decided: None, reported: None }
    }

    /// Writes the deleted nodes to the ConfigMap, and returns which of these nodes the operator may release. Only the
    /// leader may call this function.
    pub(super) async fn observe(&mut self, owners: &NodeOwners) -> Permits {
        if owners.deleted.is_empty() && !self.may_have_entries {
            return Permits::default();
        }
        if let Some((when, deleted, permits)) = &self.decided
            && when.elapsed() < POLL_INTERVAL
            && *deleted == owners.deleted
        {
            return permits.clone();
        }
        let permits = self.decide(owners).await;
        self.decided = Some((Instant::now(), owners.deleted.clone(), permits.clone()));
        permits
    }

    async fn decide(&mut self, owners: &NodeOwners) -> Permits {
        self.may_have_entries = true;
        let now = self.clock.now();
        let times = HoldTimes { grace_period: self.context.node_grace_period, hold: self.context.reclaim_hold };
        let stored = match self.config_map.read(now).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "deleted nodes keep their blocks until the operator can read its ConfigMap");
                return Permits::default();
            }
        };
        let deletions = stored.deletions.observe(owners, now, times);
        self.report(&deletions);
        let earlier = stored.deletions.clone();
        let stored = self.store(stored, &deletions).await;
        self.may_have_entries = !stored.nodes.is_empty();
        Permits { deletions: Some(deletions), stored, earlier }
    }

    /// The reference for events about many deleted nodes.
    pub(super) fn reference(&self) -> ObjectReference {
        self.config_map.reference()
    }

    /// Forgets the last decision, because this operator does not lead or its cache is not complete yet.
    pub(super) fn forget(&mut self) {
        self.may_have_entries = true;
        (self.decided, self.reported) = (None, None);
        self.context.metrics.held_nodes.set(0);
    }

    /// Writes the entries if they have changed. Returns the entries that the ConfigMap certainly contains.
    async fn store(&self, stored: Stored, deletions: &Deletions) -> Deletions {
        if stored.deletions == *deletions {
            return stored.deletions;
        }
        match self.config_map.write(&stored, deletions).await {
            Ok(()) => deletions.clone(),
            Err(error) => {
                tracing::warn!(%error, "could not write the ConfigMap of deleted nodes; the operator retries. If the operator restarts before a write succeeds, it forgets the latest deletions");
                stored.deletions
            }
        }
    }

    /// Reports a hold. Each pass sets a gauge. If the hold has changed or a reminder is due, the operator also writes a log
    /// line and an event.
    fn report(&mut self, deletions: &Deletions) {
        let held: Vec<(&str, Timestamp)> = deletions.held().collect();
        self.context.metrics.held_nodes.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
        let Some(sentence) = sentence(&held, self.context.reclaim_hold, &self.context.namespace) else {
            self.reported = None;
            return;
        };
        let is_reported = |(text, at): &(String, Instant)| *text == sentence && at.elapsed() < REMINDER_INTERVAL;
        if self.reported.as_ref().is_some_and(is_reported) {
            return;
        }
        tracing::warn!("{sentence}");
        self.context.events.on_object(self.config_map.reference(), &operator::RECLAIM_HELD, &sentence);
        self.reported = Some((sentence, Instant::now()));
    }
}

/// The message about the held nodes; `None` if no node is held.
fn sentence(held: &[(&str, Timestamp)], hold_time: Duration, namespace: &str) -> Option<String> {
    let last = held.iter().map(|(_, deleted_at)| *deleted_at).max()?;
    let named = held.iter().take(MAX_NAMED_NODES).map(|(node, _)| node);
    let end = last.checked_add(SignedDuration::try_from(hold_time).ok()?).ok()?;
    Some(format!(
        "{} deleted nodes keep their blocks until {end}, because many Nodes were deleted together: {}. \
         If the machines run, restart kubelet on these nodes: it registers the Nodes again, and the nodes keep their blocks. If all of these machines are off, run this command to release the blocks: kubectl -n {namespace} annotate configmap {NAME} \
         {CONFIRMATION}={last} --overwrite",
        held.len(),
        list_names(named, held.len()),
    ))
}

/// A clock that shows the wall-clock time at the operator's start plus the monotonic time since then, so it never jumps.
struct SteadyClock {
    wall: Timestamp,
    started: Instant,
}

impl SteadyClock {
    fn start() -> Self {
        Self { wall: Timestamp::now(), started: Instant::now() }
    }

    /// The time in whole seconds, as the ConfigMap stores it.
    fn now(&self) -> Timestamp {
        let seconds = i64::try_from(self.started.elapsed().as_secs()).unwrap_or_default();
        Timestamp::from_second(self.wall.as_second().saturating_add(seconds)).unwrap_or(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_nodes_the_end_and_the_command() {
        let time = |text: &str| text.parse::<Timestamp>().expect("it is a time");
        let held = [("n1", time("2026-11-22T02:00:00Z")), ("n2", time("2026-11-22T02:01:00Z"))];
        let text = sentence(&held, Duration::from_hours(1), "bobbin-system").expect("two nodes are held");
        assert!(text.contains("2 deleted nodes keep their blocks until 2026-11-22T03:01:00Z, because many Nodes were deleted together: n1, n2."), "{text}");
        let command = "kubectl -n bobbin-system annotate configmap bobbin-deleted-nodes bobbin.dev/confirm-deletion=2026-11-22T02:01:00Z --overwrite";
        assert!(text.ends_with(command), "{text}");
        assert_eq!(sentence(&[], Duration::from_hours(1), "bobbin-system"), None);
    }
}
