//! What operators remember of deleted nodes, also across restarts, and which of these nodes they may release. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bobbin_ipam::reclaim::{DeletedNode, HoldTimes, ReclaimState, decide};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
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

/// How far the release of a deleted node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub(super) enum Progress {
    /// The deletion was expected, so it never counts for a hold.
    Expected,
    /// The node may be released after its grace period.
    Waiting,
    /// The node must not be released.
    Held,
    /// The hold of the node ended, and the node may be released.
    Released {
        /// When the hold ended.
        released_at: Time,
    },
    /// The node was released after a hold. The entry stays only because it limits the rate of further releases.
    Done {
        /// When the operator saw that the node owns nothing any more.
        done_at: Time,
    },
}

/// All deleted nodes that own blocks or assignments, and what an administrator confirmed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Deletions {
    pub(super) nodes: BTreeMap<String, Deletion>,
    /// An administrator confirmed that the machines of all nodes that were deleted until this time are off.
    pub(super) confirmed_until: Option<Timestamp>,
}

impl Deletion {
    /// An entry that can't be decoded counts as held from now on.
    pub(super) fn unreadable(now: Timestamp) -> Self {
        Self { deleted_at: Time(now), progress: Progress::Held }
    }

    /// The entry of a deleted node that owns something. `known` is the node's entry until now.
    fn observed(departure: Departure, known: Option<&Self>, now: Timestamp) -> Self {
        let new = |progress| Self { deleted_at: Time(now), progress };
        let is_expected = matches!(departure, Departure::Expected | Departure::OutOfService);
        match known {
            // If the entry is done, the Node was created and deleted again after that entry was written.
            None | Some(Self { progress: Progress::Done { .. }, .. }) if is_expected => new(Progress::Expected),
            None | Some(Self { progress: Progress::Done { .. }, .. }) => new(Progress::Waiting),
            Some(Self { progress: Progress::Expected, .. }) if departure == Departure::Unexpected => {
                new(Progress::Waiting)
            }
            Some(known) => Self {
                deleted_at: Time(known.deleted_at.0.min(now)),
                progress: if is_expected { Progress::Expected } else { known.progress.clone() },
            },
        }
    }

    /// The entry of a node that owns nothing any more or whose Node exists; `None` if the entry is not needed.
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
            // An operator that restarts waits for another grace period. So the node may be released up to one grace period after
            // `released_at`.
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
    /// The deletions to remember after the operator has seen these owners.
    pub(super) fn observe(&self, owners: &NodeOwners, now: Timestamp, times: HoldTimes) -> Self {
        let observed = owners
            .deleted
            .iter()
            .map(|(node, departure)| (node.to_string(), Deletion::observed(*departure, self.nodes.get(&**node), now)));
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

    /// Whether the node may be released when its grace period is over. A node without an entry may not be released.
    pub(super) fn may_release(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|deletion| match deletion.progress {
            Progress::Expected | Progress::Waiting | Progress::Released { .. } => true,
            Progress::Held | Progress::Done { .. } => false,
        })
    }

    /// Whether a hold of the node ended.
    pub(super) fn is_released(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|deletion| matches!(deletion.progress, Progress::Released { .. }))
    }

    /// The held nodes, with the times of their deletions.
    pub(super) fn held(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let held = self.nodes.iter().filter(|(_, deletion)| deletion.progress == Progress::Held);
        held.map(|(node, deletion)| (node.as_str(), deletion.deleted_at.0))
    }
}

#[cfg(test)]
mod tests;
