//! Stores the cached objects of one kind in kube's reflector store, and reports whether an event changed a cached object.

use std::sync::Arc;

use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::watcher::Event;
use parking_lot::Mutex;

/// The cached objects of one kind. They come from a watch, from LIST responses, and from the snapshot of an earlier run.
pub(super) struct ObjectStore<K: Lookup<DynamicType = ()> + Clone + 'static> {
    objects: Store<K>,
    /// The lock makes "compare, then replace" atomic.
    writer: Mutex<Writer<K>>,
}

impl<K: Lookup<DynamicType = ()> + Clone + PartialEq> Default for ObjectStore<K> {
    fn default() -> Self {
        let (objects, writer) = reflector::store();
        Self { objects, writer: Mutex::new(writer) }
    }
}

impl<K: Lookup<DynamicType = ()> + Clone + PartialEq> ObjectStore<K> {
    /// The cached object of this name.
    pub(super) fn get(&self, key: &ObjectRef<K>) -> Option<Arc<K>> {
        self.objects.get(key)
    }

    /// All cached objects, in no particular order.
    pub(super) fn all(&self) -> Vec<Arc<K>> {
        self.objects.state()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Applies an event of the watch. Returns whether the event changed a cached object or marked the end of a list.
    ///
    /// Ignores the deletion of an earlier object with the same name.
    pub(super) fn apply(&self, event: &Event<K>) -> bool {
        let mut writer = self.writer.lock();
        let changed = match event {
            Event::Init | Event::InitApply(_) => false,
            Event::InitDone => true,
            Event::Apply(object) => self.cached(object).as_deref() != Some(object),
            Event::Delete(object) => match self.cached(object) {
                Some(cached) if cached.uid() == object.uid() => true,
                Some(_) | None => return false,
            },
        };
        writer.apply_watcher_event(event);
        changed
    }

    /// Makes the store equal to a complete list. A cached object stays if `newer` says that its version is newer than the listed version.
    /// Returns whether anything changed.
    ///
    /// The watch may be reading a list at the same time. This method applies each difference as a separate event, which does not disturb
    /// the watch's list.
    pub(super) fn replace(&self, listed: Vec<K>, newer: impl Fn(&K, &K) -> bool) -> bool {
        let mut writer = self.writer.lock();
        let mut changed = false;
        let names: std::collections::HashSet<ObjectRef<K>> =
            listed.iter().map(|object| object.to_object_ref(())).collect();
        for object in listed {
            let keep = |cached: Arc<K>| *cached == object || newer(&cached, &object);
            if !self.cached(&object).is_some_and(keep) {
                writer.apply_watcher_event(&Event::Apply(object));
                changed = true;
            }
        }
        for object in self.all().iter().filter(|object| !names.contains(&object.to_object_ref(()))) {
            writer.apply_watcher_event(&Event::Delete(K::clone(object)));
            changed = true;
        }
        changed
    }

    fn cached(&self, object: &K) -> Option<Arc<K>> {
        self.objects.get(&object.to_object_ref(()))
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;
    use serde_json::json;

    use super::super::PodInfo;
    use super::*;

    fn pod(name: &str, uid: &str) -> PodInfo {
        let metadata = json!({"namespace": "shop", "name": name, "uid": uid});
        PodInfo::of(&serde_json::from_value::<ObjectMeta>(metadata).unwrap())
    }

    fn uids(store: &ObjectStore<PodInfo>) -> Vec<String> {
        let mut uids: Vec<String> = store.all().iter().map(|pod| pod.uid.clone()).collect();
        uids.sort();
        uids
    }

    #[test]
    fn only_events_that_change_an_object_or_end_a_list_are_changes() {
        let store = ObjectStore::default();
        assert!(store.apply(&Event::Apply(pod("a", "1"))));
        assert!(!store.apply(&Event::Apply(pod("a", "1"))), "the event contains the cached object");
        assert!(store.apply(&Event::Apply(pod("a", "2"))));
        assert!(!store.apply(&Event::Delete(pod("a", "1"))), "an earlier pod of the same name was deleted");
        assert_eq!(uids(&store), ["2"]);
        assert!(store.apply(&Event::Delete(pod("a", "2"))) && store.is_empty());
        assert!(!store.apply(&Event::Init) && store.apply(&Event::InitDone), "the end of an empty list is a change");
    }

    #[test]
    fn saved_objects_stay_until_the_first_list_ends() {
        let store = ObjectStore::default();
        store.apply(&Event::Apply(pod("saved", "1")));
        store.apply(&Event::Init);
        store.apply(&Event::InitApply(pod("listed", "2")));
        assert_eq!(uids(&store), ["1"]);
        store.apply(&Event::InitDone);
        assert_eq!(uids(&store), ["2"]);
    }

    #[test]
    fn a_complete_list_replaces_objects_but_not_newer_versions_and_not_the_list_of_the_watch() {
        let store = ObjectStore::default();
        for cached in [pod("deleted", "1"), pod("newer", "9"), pod("older", "1")] {
            store.apply(&Event::Apply(cached));
        }
        store.apply(&Event::Init);
        store.apply(&Event::InitApply(pod("watched", "5")));
        let newer = |cached: &PodInfo, listed: &PodInfo| cached.uid > listed.uid;
        let list = || vec![pod("newer", "2"), pod("older", "3")];
        assert!(store.replace(list(), newer));
        assert_eq!(uids(&store), ["3", "9"]);
        assert!(!store.replace(list(), newer), "the same list changes nothing");
        store.apply(&Event::InitDone);
        assert_eq!(uids(&store), ["5"]);
    }
}
