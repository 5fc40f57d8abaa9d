//! The watches of pods, pools and namespaces that fill the cache. They never end, whatever the API server answers.
//!
//! kube's `reflector::Store` is not used, because it keeps whole objects and starts empty. It also lacks the newly scheduled pods and the
//! last readable version of a pool that can't be decoded.

use std::fmt::Debug;
use std::sync::Arc;

use bobbin_api_client::{Clients, Lenient};
use bobbin_crds::AddressPool;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{CachedKind, CachedObjects, ClusterCache, NamespaceInfo, PodInfo};

/// Runs all three watches concurrently.
pub(super) async fn run(cluster: &ClusterCache, clients: &Clients) {
    let client = &clients.watches;
    let all = Config::default;
    let mine = |field: &str| all().fields(&format!("{field}={}", cluster.node_name()));
    tokio::join!(
        watch(
            cluster,
            CachedKind::Pods,
            Api::<Lenient<PartialObjectMeta<Pod>>>::all(client.clone()),
            mine("spec.nodeName"),
            pods()
        ),
        watch(cluster, CachedKind::Pools, Api::<Lenient<AddressPool>>::all(client.clone()), all(), pools()),
        watch(
            cluster,
            CachedKind::Namespaces,
            Api::<Lenient<PartialObjectMeta<Namespace>>>::all(client.clone()),
            all(),
            namespaces()
        ),
    );
}

async fn watch<K>(
    cluster: &ClusterCache,
    kind: CachedKind,
    api: Api<Lenient<K>>,
    config: Config,
    mut apply: impl FnMut(&ClusterCache, Event<Lenient<K>>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let mut events = bobbin_api_client::watch(api, config);
    cluster.objects().watch_ages[kind as usize] = Some(events.age());
    while let Some(event) = events.next().await {
        let complete = matches!(event, Event::InitDone);
        // `unreadable` logs objects that can't be decoded. The operator publishes the events about them.
        let _ = cluster.0.unreadable.event(&event);
        apply(cluster, event);
        if complete {
            // Notify even after an empty list: missing objects are now known not to exist.
            cluster.notify(kind);
        }
    }
}

fn pods() -> impl FnMut(&ClusterCache, Event<Lenient<PartialObjectMeta<Pod>>>) {
    let mut listed = std::collections::HashMap::new();
    let key = |pod: &PodInfo| (pod.namespace.clone(), pod.name.clone());
    move |cluster, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(pod) => {
                let pod = PodInfo::of(pod.meta());
                listed.insert(key(&pod), pod);
                return;
            }
            Event::InitDone => {
                let mut objects = cluster.objects();
                objects.pods = std::mem::take(&mut listed);
                let CachedObjects { pods, newly_scheduled, .. } = &mut *objects;
                newly_scheduled.retain(|key, pod| pods.get(key).is_some_and(|known| known.uid == pod.uid));
            }
            Event::Apply(pod) => {
                let terminating = pod.meta().deletion_timestamp.is_some();
                let pod = PodInfo::of(pod.meta());
                let mut objects = cluster.objects();
                let before = objects.pods.insert(key(&pod), pod.clone());
                if before.as_ref() == Some(&pod) {
                    return;
                }
                if !terminating && before.is_none_or(|before| before.uid != pod.uid) {
                    objects.newly_scheduled.insert(key(&pod), pod);
                }
            }
            Event::Delete(pod) => {
                let pod = PodInfo::of(pod.meta());
                let mut objects = cluster.objects();
                if objects.pods.get(&key(&pod)).is_some_and(|known| known.uid == pod.uid) {
                    objects.pods.remove(&key(&pod));
                    objects.newly_scheduled.remove(&key(&pod));
                }
            }
        }
        cluster.notify(CachedKind::Pods);
    }
}

fn pools() -> impl FnMut(&ClusterCache, Event<Lenient<AddressPool>>) {
    let mut listed = std::collections::BTreeMap::new();
    let known = |cluster: &ClusterCache, name: &str| cluster.objects().pools.get(name).cloned();
    move |cluster, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(pool) => {
                let name = pool.name().to_owned();
                // A pool that can't be decoded keeps its last readable version.
                let pool = pool.into_result().map(Arc::new).ok().or_else(|| known(cluster, &name));
                listed.extend(pool.map(|pool| (name, pool)));
                return;
            }
            Event::InitDone => cluster.objects().pools = std::mem::take(&mut listed),
            Event::Apply(pool) => {
                let name = pool.name().to_owned();
                if let Ok(pool) = pool.into_result() {
                    cluster.objects().pools.insert(name, Arc::new(pool));
                }
            }
            Event::Delete(pool) => {
                cluster.objects().pools.remove(pool.name());
            }
        }
        cluster.notify(CachedKind::Pools);
    }
}

fn namespaces() -> impl FnMut(&ClusterCache, Event<Lenient<PartialObjectMeta<Namespace>>>) {
    let mut listed = std::collections::HashMap::new();
    move |cluster, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(namespace) => {
                listed.insert(namespace.name().to_owned(), NamespaceInfo::of(namespace.meta()));
                return;
            }
            Event::InitDone => cluster.objects().namespaces = std::mem::take(&mut listed),
            Event::Apply(namespace) => {
                let seen = NamespaceInfo::of(namespace.meta());
                let before = cluster.objects().namespaces.insert(namespace.name().to_owned(), seen.clone());
                if before.as_ref() == Some(&seen) {
                    return;
                }
            }
            Event::Delete(namespace) => {
                cluster.objects().namespaces.remove(namespace.name());
            }
        }
        cluster.notify(CachedKind::Namespaces);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str) -> Lenient<PartialObjectMeta<Pod>> {
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name, "uid": uid}})).unwrap()
    }

    fn expected(cluster: &ClusterCache) -> Vec<String> {
        let mut uids: Vec<String> = cluster.take_newly_scheduled().into_iter().map(|pod| pod.uid).collect();
        uids.sort();
        uids
    }

    #[test]
    fn newly_scheduled_pods_that_are_not_taken_are_forgotten_with_their_objects() {
        let cluster = ClusterCache::of(None, Vec::new(), Vec::new(), Vec::new());
        let mut apply = pods();
        for number in 0..1000 {
            apply(&cluster, Event::Apply(pod("web-0", &format!("u{number}"))));
            apply(&cluster, Event::Delete(pod("web-0", &format!("u{number}"))));
        }
        apply(&cluster, Event::Apply(pod("web-0", "old")));
        apply(&cluster, Event::Apply(pod("web-0", "new")));
        assert_eq!(cluster.objects().newly_scheduled.len(), 1);
        apply(&cluster, Event::Apply(pod("web-1", "missed")));
        // The watch restarted, and its new list lacks the deleted pod web-1.
        apply(&cluster, Event::Init);
        apply(&cluster, Event::InitApply(pod("web-0", "new")));
        apply(&cluster, Event::InitDone);
        assert_eq!(expected(&cluster), ["new"]);
        assert!(expected(&cluster).is_empty());
    }
}
