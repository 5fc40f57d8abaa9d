//! Collects the pods that are scheduled to this node while the agent watches, so that the agent can claim a block before the pods' ADDs.

use std::collections::HashMap;
use std::sync::Arc;

use kube::runtime::reflector::{Lookup, ObjectRef};
use kube::runtime::watcher::Event;
use parking_lot::Mutex;

use super::PodInfo;
use super::object_store::ObjectStore;

/// The newly scheduled pods by name, until they are taken or deleted.
#[derive(Default)]
pub(super) struct NewlyScheduledPods(Mutex<Pods>);

#[derive(Default)]
struct Pods {
    scheduled: HashMap<ObjectRef<PodInfo>, Arc<PodInfo>>,
    /// The UIDs of the pods in the list that the watch is reading.
    listed: HashMap<ObjectRef<PodInfo>, String>,
}

impl NewlyScheduledPods {
    /// Processes an event of the watch before `cached` applies the event.
    ///
    /// The pods in a LIST response do not count as newly scheduled. A pod that is missing in a LIST response has been
    /// deleted.
    pub(super) fn observe(&self, event: &Event<PodInfo>, cached: &ObjectStore<PodInfo>) {
        let mut pods = self.0.lock();
        match event {
            Event::Init => pods.listed.clear(),
            Event::InitApply(pod) => {
                pods.listed.insert(pod.to_object_ref(()), pod.uid.clone());
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut pods.listed);
                pods.scheduled.retain(|key, pod| listed.get(key) == Some(&pod.uid));
            }
            Event::Apply(pod) => {
                let key = pod.to_object_ref(());
                let known = cached.get(&key).is_some_and(|cached| cached.uid == pod.uid);
                if !pod.terminating && !known {
                    pods.scheduled.insert(key, Arc::new(pod.clone()));
                }
            }
            Event::Delete(pod) => {
                let key = pod.to_object_ref(());
                if pods.scheduled.get(&key).is_some_and(|scheduled| scheduled.uid == pod.uid) {
                    pods.scheduled.remove(&key);
                }
            }
        }
    }

    /// Returns the newly scheduled pods and forgets them.
    pub(super) fn take(&self) -> Vec<Arc<PodInfo>> {
        std::mem::take(&mut self.0.lock().scheduled).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str) -> PodInfo {
        let metadata = json!({"namespace": "shop", "name": name, "uid": uid});
        PodInfo::of(&serde_json::from_value::<ObjectMeta>(metadata).unwrap())
    }

    fn uids(pods: &NewlyScheduledPods) -> Vec<String> {
        let mut uids: Vec<String> = pods.take().iter().map(|pod| pod.uid.clone()).collect();
        uids.sort();
        uids
    }

    #[test]
    fn newly_scheduled_pods_that_are_not_taken_are_forgotten_with_their_objects() {
        let (pods, cached) = (NewlyScheduledPods::default(), ObjectStore::default());
        let apply = |event: Event<PodInfo>| {
            pods.observe(&event, &cached);
            cached.apply(&event);
        };
        for number in 0..1000 {
            apply(Event::Apply(pod("web-0", &format!("u{number}"))));
            apply(Event::Delete(pod("web-0", &format!("u{number}"))));
        }
        apply(Event::Apply(pod("web-0", "old")));
        apply(Event::Apply(pod("web-0", "new")));
        assert_eq!(pods.0.lock().scheduled.len(), 1);
        apply(Event::Apply(pod("web-1", "missed")));
        // The watch restarted, and its new list lacks the deleted pod web-1.
        apply(Event::Init);
        apply(Event::InitApply(pod("web-0", "new")));
        apply(Event::InitDone);
        assert_eq!(uids(&pods), ["new"]);
        // Neither a change of a known pod nor a pod that is being deleted counts as newly scheduled.
        apply(Event::Apply(PodInfo { pool: Some("special".to_owned()), ..pod("web-0", "new") }));
        apply(Event::Apply(PodInfo { terminating: true, ..pod("web-2", "late") }));
        assert!(uids(&pods).is_empty());
    }
}
