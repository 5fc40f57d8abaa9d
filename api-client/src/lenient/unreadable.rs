//! A register of the objects that can't be decoded. The register counts the objects by kind, and logs each object that
//! becomes undecodable.
//!
//! All watches and reads of a program share one register.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;

use super::Lenient;

/// The namespace and the name of an object. The namespace is empty if the object has none.
type Key = (String, String);

/// The objects that can't be decoded at the moment. Cheap to clone: all clones share one register.
#[derive(Clone, Debug, Default)]
pub struct UnreadableObjects(Arc<Mutex<HashMap<String, Kind>>>);

#[derive(Debug, Default)]
struct Kind {
    /// The unreadable objects of this kind, each with the reason why it can't be decoded.
    objects: HashMap<Key, String>,
    /// While the watch lists all objects (`Init` to `InitDone`): the unreadable objects that the list has shown so far.
    listed: HashSet<Key>,
}

/// Says that an object has become unreadable, or that the reason why it is unreadable has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct UnreadableNotice {
    /// The unreadable object, as the subject of an event.
    pub object: ObjectReference,
    /// Which field is wrong, and a command with which a person can correct the object.
    pub text: String,
}

impl UnreadableObjects {
    /// Updates the register from a watch event. Call this function with each watch event before you use the event.
    ///
    /// Returns a notice if an object has become unreadable, or if the reason why it is unreadable has changed. This
    /// function logs the notice; the caller publishes the notice as a Kubernetes Event.
    pub fn event<K>(&self, event: &Event<Lenient<K>>) -> Option<UnreadableNotice>
    where
        K: Resource,
        K::DynamicType: Default,
    {
        match event {
            Event::Init => self.with(&kind::<K>(), |kind| kind.listed.clear()),
            Event::InitApply(object) => {
                if let Lenient::Unreadable(object) = object {
                    let key = key(&object.metadata);
                    self.with(&kind::<K>(), |kind| kind.listed.insert(key));
                }
                return self.note(object);
            }
            Event::InitDone => self.with(&kind::<K>(), |kind| {
                let listed = std::mem::take(&mut kind.listed);
                kind.objects.retain(|key, _| listed.contains(key));
            }),
            Event::Apply(object) => return self.note(object),
            Event::Delete(object) => self.gone(object),
        }
        None
    }

    /// Updates the register with an object that the API server returned. Adds the object if it is unreadable, and removes
    /// it if it is readable.
    ///
    /// Logs and returns a notice if the object has become unreadable, or if the reason why it is unreadable has changed.
    pub fn note<K>(&self, object: &Lenient<K>) -> Option<UnreadableNotice>
    where
        K: Resource,
        K::DynamicType: Default,
    {
        let kind = kind::<K>();
        let key = key(object.meta());
        let Lenient::Unreadable(unreadable) = object else {
            self.with(&kind, |known| known.objects.remove(&key));
            return None;
        };
        let before = self.with(&kind, |known| known.objects.insert(key, unreadable.why.clone()));
        if before.as_ref() == Some(&unreadable.why) {
            return None;
        }
        let notice = notice(object, &unreadable.why);
        tracing::warn!(kind, name = object.name(), "{}", notice.text);
        Some(notice)
    }

    /// Updates the register from a list of all objects of a kind, and forgets unreadable objects that the list does not
    /// contain.
    pub fn listed<K>(&self, objects: &[Lenient<K>])
    where
        K: Resource,
        K::DynamicType: Default,
    {
        for object in objects {
            let _ = self.note(object);
        }
        let there: HashSet<Key> = objects.iter().map(|object| key(object.meta())).collect();
        self.with(&kind::<K>(), |kind| kind.objects.retain(|key, _| there.contains(key)));
    }

    /// Forgets an object that was deleted.
    pub fn gone<K>(&self, object: &Lenient<K>)
    where
        K: Resource,
        K::DynamicType: Default,
    {
        self.with(&kind::<K>(), |kind| kind.objects.remove(&key(object.meta())));
    }

    /// How many objects of each kind can't be decoded. A kind is missing if the program has never read an object of the kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let kinds = self.0.lock();
        kinds.iter().map(|(kind, known)| (kind.clone(), known.objects.len())).collect()
    }

    /// How many objects of kind `K` can't be decoded.
    pub fn count<K>(&self) -> usize
    where
        K: Resource,
        K::DynamicType: Default,
    {
        self.with(&kind::<K>(), |kind| kind.objects.len())
    }

    fn with<T>(&self, kind: &str, look: impl FnOnce(&mut Kind) -> T) -> T {
        let mut kinds = self.0.lock();
        look(kinds.entry(kind.to_owned()).or_default())
    }
}

fn kind<K>() -> String
where
    K: Resource,
    K::DynamicType: Default,
{
    K::kind(&K::DynamicType::default()).into_owned()
}

fn key(metadata: &kube::api::ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn notice<K>(object: &Lenient<K>, why: &str) -> UnreadableNotice
where
    K: Resource,
    K::DynamicType: Default,
{
    let dynamic = K::DynamicType::default();
    let (kind, plural, group) = (K::kind(&dynamic), K::plural(&dynamic), K::group(&dynamic));
    let resource = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
    let name = object.name();
    let namespace = object.meta().namespace.as_deref().map(|name| format!(" --namespace {name}")).unwrap_or_default();
    UnreadableNotice {
        object: object.object_ref(&dynamic),
        text: format!(
            "{kind} {name} can't be read: {why}. Until somebody corrects the object, it counts as in use. Correct the object with: kubectl edit {resource} {name}{namespace}"
        ),
    }
}
