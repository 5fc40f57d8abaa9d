//! The stored state of each deleted node, and the decision which of these nodes the operator may release. The stored
//! state survives restarts. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bobbin_ipam::reclaim::{DeletedNode, HoldTimes, ReclaimState, decide};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use crate::cache::{Departure, NodeOwners};

/// A deleted node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Deletion {
    /// When an operator first saw that the Node was deleted.
    pub(super) deleted_at: Time,
    #[serde(flatten)]
    pub(super) progress: Progress,
}

/// The progress of the release of a deleted node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub(super) enum Progress {
    /// The deletion was expected, so the operator does not hold the node.
    Expected,
    /// The node may be released after its grace period.
    Waiting,
    /// The node must not be released.
    Held,
    /// The node was held earlier and may be released now.
    Released {
        /// When the hold ended.
        released_at: Time,
    },
    /// The hold ended. After that, the operator released the node, or the Node was created again. The entry stays,
    /// because it limits the rate of further releases.
    Done {
        /// When the operator saw that the node owns no block and no assignment any more, or that the Node exists again.
        done_at: Time,
    },
}

/// The entries of the ConfigMap, by node, and the confirmation of an administrator.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Deletions {
    pub(super) nodes: BTreeMap<String, Deletion>,
    /// The time in an administrator's confirmation. The administrator confirms that the machines of all nodes that were
    /// deleted at or before this time are off.
    pub(super) confirmed_until: Option<Timestamp>,
}

impl Deletion {
    /// An entry that can't be decoded counts as held from `seen_at` on.
    pub(super) fn unreadable(seen_at: Timestamp) -> Self {
        Self { deleted_at: Time(seen_at), progress: Progress::Held }
    }

    /// The entry of a deleted node that owns something. `known` is the node's earlier entry. A new entry gets the time
    /// `seen_at`.
    fn observed(departure: Departure, known: Option<&Self>, seen_at: Timestamp) -> Self {
        let new = |progress| Self { deleted_at: Time(seen_at), progress };
        let is_expected = matches!(departure, Departure::Expected | Departure::OutOfService);
        match known {
            // An entry in state `Done` belongs to an earlier deletion of the Node, so this deletion gets a new entry.
            None | Some(Self { progress: Progress::Done { .. }, .. }) if is_expected => new(Progress::Expected),
            None | Some(Self { progress: Progress::Done { .. }, .. }) => new(Progress::Waiting),
            Some(Self { progress: Progress::Expected, .. }) if departure == Departure::Unexpected => {
                new(Progress::Waiting)
            }
            Some(known) => Self {
                deleted_at: Time(known.deleted_at.0.min(seen_at)),
                progress: if is_expected { Progress::Expected } else { known.progress.clone() },
            },
        }
    }

    /// The new entry of a node that owns nothing any more or that exists again. `None` if the node needs no entry.
    fn ended(&self, now: Timestamp) -> Option<Self> {
        match &self.progress {
            Progress::Released { .. } => {
                let progress = Progress::Done { done_at: Time(now) };
                Some(Self { deleted_at: self.deleted_at.clone(), progress })
            }
            Progress::Done { .. } => Some(self.clone()),
            Progress::Expected | Progress::Waiting | Progress::Held => None,
        }
    }

    fn input(&self, confirmed_until: Option<Timestamp>, now: Timestamp, times: HoldTimes) -> Option<DeletedNode> {
        let since = |time: &Time| Duration::try_from(now.duration_since(time.0)).unwrap_or_default();
        let state = match &self.progress {
            Progress::Expected => return None,
            Progress::Waiting => ReclaimState::Waiting,
            Progress::Held => ReclaimState::Held,
            // A restarted operator first waits for a new grace period, so it may release the node up to one grace period
            // after the hold ended. `ago` counts from that latest possible release.
            Progress::Released { released_at } => {
                ReclaimState::Released { ago: since(released_at).saturating_sub(times.grace_period) }
            }
            Progress::Done { done_at } => ReclaimState::Released { ago: since(done_at) },
        };
        let confirmed = confirmed_until.is_some_and(|until| self.deleted_at.0 <= until);
        Some(DeletedNode { age: since(&self.deleted_at), confirmed, state })
    }
}

impl Deletions {
    /// The new entries to store, computed from the earlier entries and from the deleted nodes that own something now.
    pub(super) fn observe(&self, owners: &NodeOwners, now: Timestamp, times: HoldTimes) -> Self {
        let seen_at = time_of_new_deletion(self.confirmed_until, now);
        let observed = owners.deleted.iter().map(|(node, departure)| {
            (node.to_string(), Deletion::observed(*departure, self.nodes.get(&**node), seen_at))
        });
        let ended = self.nodes.iter().filter(|(node, _)| !owners.deleted.contains_key(node.as_str()));
        let ended = ended.filter_map(|(node, deletion)| Some((node.clone(), deletion.ended(now)?)));
        let mut nodes: BTreeMap<String, Deletion> = ended.chain(observed).collect();
        let (mut counted, inputs): (Vec<&mut Deletion>, Vec<DeletedNode>) = nodes
            .values_mut()
            .filter_map(|deletion| deletion.input(self.confirmed_until, now, times).map(|input| (deletion, input)))
            .unzip();
        for ((deletion, before), after) in counted.iter_mut().zip(&inputs).zip(decide(&inputs, owners.count, times)) {
            match after {
                ReclaimState::Held => deletion.progress = Progress::Held,
                ReclaimState::Released { .. } if before.state != after => {
                    deletion.progress = Progress::Released { released_at: Time(now) };
                }
                ReclaimState::Waiting | ReclaimState::Released { .. } => {}
            }
        }
        let is_open = |deletion: &Deletion| matches!(deletion.progress, Progress::Held | Progress::Released { .. });
        if !nodes.values().any(is_open) {
            nodes.retain(|_, deletion| !matches!(deletion.progress, Progress::Done { .. }));
        }
        Self { nodes, confirmed_until: self.confirmed_until }
    }

    /// Whether the operator may release the node after the node's grace period. The operator must not release a node
    /// without an entry.
    pub(super) fn may_release(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|deletion| match deletion.progress {
            Progress::Expected | Progress::Waiting | Progress::Released { .. } => true,
            Progress::Held | Progress::Done { .. } => false,
        })
    }

    /// When an operator first saw the current deletion of this node. `None` if the node has no entry, or if its release
    /// is complete.
    pub(super) fn open_since(&self, node: &str) -> Option<Timestamp> {
        let open = |deletion: &&Deletion| !matches!(deletion.progress, Progress::Done { .. });
        self.nodes.get(node).filter(open).map(|deletion| deletion.deleted_at.0)
    }

    /// Whether the node was held and the hold has ended.
    pub(super) fn is_released(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|deletion| matches!(deletion.progress, Progress::Released { .. }))
    }

    /// The held nodes, each with the time of its deletion.
    pub(super) fn held(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let held = self.nodes.iter().filter(|(_, deletion)| deletion.progress == Progress::Held);
        held.map(|(node, deletion)| (node.as_str(), deletion.deleted_at.0))
    }
}

/// The time to store for a deletion that the operator sees now. The time is always after the time of the confirmation,
/// because the confirmation must not cover a deletion that the administrator has not seen. `now` alone could be too
/// early: stored times are whole seconds, and the clocks of two operators differ.
pub(super) fn time_of_new_deletion(confirmed_until: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let after = |until: Timestamp| until.saturating_add(1.second()).unwrap_or(until);
    confirmed_until.map_or(now, |until| now.max(after(until)))
}

#[cfg(test)]
mod tests;
