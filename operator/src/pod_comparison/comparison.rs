//! Compares assignments with pods. Finds addresses that an assignment holds but no pod uses, and addresses that a pod
//! uses without an assignment. Pure.
//!
//! If the evidence about an address is unclear, the address is not a difference. The operator reports a difference only
//! if two comparisons in a row find it, because pods start and end while the operator reads.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bobbin_crds::is_static_pod;

use super::pools::Pools;

/// The identity of a pod, according to an assignment or to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PodId {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    /// The UID of the pod. In an assignment, the UID of a static pod is a hash. If the container runtime gave no UID, the
    /// UID is empty.
    pub(super) uid: Box<str>,
}

/// A pod according to the API server. The pod is not on the host network, and its phase is neither Succeeded nor Failed.
#[derive(Clone, Debug)]
pub(super) struct LivePod {
    pub(super) id: PodId,
    /// The UID of the static pod, if this pod is a mirror pod.
    pub(super) static_pod_uid: Option<Box<str>>,
    /// The addresses in the pod's status. The list is empty while the pod is starting.
    pub(super) addresses: Vec<IpAddr>,
}

impl LivePod {
    /// Whether an assignment that names `holder` belongs to this pod.
    fn is(&self, holder: &PodId) -> bool {
        let same_name = self.id.namespace == holder.namespace && self.id.name == holder.name;
        let same_uid = self.id.uid == holder.uid || self.static_pod_uid.as_ref() == Some(&holder.uid);
        same_name && (same_uid || holder.uid.is_empty())
    }

    /// All forms in which an assignment may name this pod.
    fn names(&self) -> impl Iterator<Item = PodId> {
        let uids = [Some(self.id.uid.clone()), self.static_pod_uid.clone(), Some("".into())];
        uids.into_iter().flatten().map(|uid| PodId { uid, ..self.id.clone() })
    }
}

/// The kind of difference between assignments and pods about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An assignment holds the address, but the assignment's pod does not exist or does not have the address.
    HeldNotUsed,
    /// A pod has the address, but no assignment holds the address for this pod.
    UsedNotHeld,
}

/// A difference between assignments and pods about one address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Difference {
    pub(super) kind: Kind,
    pub(super) pool: Arc<str>,
    pub(super) address: IpAddr,
    /// The pod that the assignment names, or the pod that has the address.
    pub(super) pod: PodId,
}

/// The holder of an address, according to the assignment of the address.
#[derive(Clone, Debug)]
enum Holder {
    Pod {
        id: Arc<PodId>,
        pool: Arc<str>,
        in_use: bool,
    },
    /// The assignment names no pod.
    Unnamed,
    /// The assignment can't be decoded. The name of the assignment shows only one of its addresses.
    Unreadable,
}

/// One comparison. Add all assignments first, then all pods.
pub(super) struct Comparison<'a> {
    pools: &'a Pools,
    held: HashMap<IpAddr, Holder>,
    used_not_held: Vec<Difference>,
    /// Pods that exist but have no address in their status yet.
    without_address: HashSet<PodId>,
    /// Namespace and name of each pod that can't be decoded.
    unreadable_pods: HashSet<(Box<str>, Box<str>)>,
    /// The mirror pods, each with the UID of its static pod.
    mirrored: HashSet<PodId>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(pools: &'a Pools) -> Self {
        Self {
            pools,
            held: HashMap::new(),
            used_not_held: Vec::new(),
            without_address: HashSet::new(),
            unreadable_pods: HashSet::new(),
            mirrored: HashSet::new(),
        }
    }

    /// Adds an assignment. `pod` is `None` if the assignment names no pod.
    pub(super) fn add_assignment(
        &mut self,
        pool: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
        pod: Option<PodId>,
    ) {
        let holder = match pod {
            Some(id) => Holder::Pod { id: Arc::new(id), pool: self.pools.name(pool), in_use: false },
            None => Holder::Unnamed,
        };
        for address in addresses {
            self.held.insert(address, holder.clone());
        }
    }

    /// Adds an assignment that can't be decoded and whose name is an address.
    pub(super) fn add_unreadable_assignment(&mut self, address: IpAddr) {
        self.held.insert(address, Holder::Unreadable);
    }

    /// Adds a pod that can't be decoded.
    pub(super) fn add_unreadable_pod(&mut self, namespace: &str, name: &str) {
        self.unreadable_pods.insert((namespace.into(), name.into()));
    }

    /// Adds a pod.
    pub(super) fn add_pod(&mut self, pod: &LivePod) {
        if pod.addresses.is_empty() {
            self.without_address.extend(pod.names());
        }
        if let Some(uid) = &pod.static_pod_uid {
            self.mirrored.insert(PodId { uid: uid.clone(), ..pod.id.clone() });
        }
        if pod.addresses.iter().any(|address| matches!(self.held.get(address), Some(Holder::Unreadable))) {
            return;
        }
        for &address in &pod.addresses {
            let holder = self.held.get_mut(&address);
            let is_held = match holder {
                Some(Holder::Pod { id, in_use, .. }) if pod.is(id) => {
                    *in_use = true;
                    true
                }
                Some(Holder::Unnamed | Holder::Unreadable) => true,
                Some(Holder::Pod { .. }) | None => false,
            };
            if !is_held && let Some(pool) = self.pools.of(address) {
                let kind = Kind::UsedNotHeld;
                self.used_not_held.push(Difference { kind, pool, address, pod: pod.id.clone() });
            }
        }
    }

    /// All differences between the assignments and the pods.
    pub(super) fn differences(self) -> HashSet<Difference> {
        let mut differences: HashSet<Difference> = HashSet::new();
        for (address, holder) in &self.held {
            let Holder::Pod { id, pool, in_use: false } = holder else { continue };
            if !self.may_be_in_use(id) {
                let (kind, pool, pod) = (Kind::HeldNotUsed, Arc::clone(pool), PodId::clone(id));
                differences.insert(Difference { kind, pool, address: *address, pod });
            }
        }
        differences.extend(self.used_not_held);
        differences
    }

    /// Whether the pod of an assignment may have the assignment's address without showing the address in its status.
    fn may_be_in_use(&self, pod: &PodId) -> bool {
        // A static pod runs without a mirror pod if its kubelet can't create one.
        let unseen_static_pod = is_static_pod(&pod.uid) && !self.mirrored.contains(pod);
        unseen_static_pod
            || self.without_address.contains(pod)
            || self.unreadable_pods.contains(&(pod.namespace.clone(), pod.name.clone()))
    }
}

#[cfg(test)]
mod tests;
