//! Watches pods, pools and namespaces to fill the cache. The watches never end, whatever the API server answers.

use std::fmt::Debug;
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, WatchAge};
use bobbin_crds::AddressPool;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{Lookup, ObjectRef};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::freshness::WatchedKind;
use super::object_store::ObjectStore;
use super::{CachedKind, ClusterCache, NamespaceInfo, PodInfo};

impl ClusterCache {
    /// Stores how current the watch of this node's assignments is, so that the status document can show it.
    pub fn set_assignments_age(&self, age: WatchAge) {
        self.objects().assignments_age = Some(age);
    }

    /// For each watch that kube runs: its name, whether it has listed its objects, and how long it has been failing.
    pub fn watch_health(&self) -> Vec<(&'static str, bool, Option<Duration>)> {
        let objects = self.objects();
        let name = |kind| match kind {
            CachedKind::Pods => "watch of pods",
            CachedKind::Pools => "watch of pools",
            CachedKind::Namespaces => "watch of namespaces",
        };
        let health =
            |name, age: Option<&WatchAge>| (name, age.is_some_and(WatchAge::synced), age.and_then(WatchAge::failing));
        let cached = [CachedKind::Pods, CachedKind::Pools, CachedKind::Namespaces];
        let cached = cached.map(|kind| health(name(kind), objects.watch_ages[kind as usize].as_ref()));
        let assignments = health(WatchedKind::Assignments.name(), objects.assignments_age.as_ref());
        std::iter::once(assignments).chain(cached).collect()
    }
}

/// Runs the watches of pods, pools and namespaces concurrently.
pub(super) async fn run(cluster: &ClusterCache, clients: &Clients) {
    let client = &clients.watches;
    let on_this_node = Config::default().fields(&format!("spec.nodeName={}", cluster.node_name()));
    let state = &cluster.0;
    tokio::join!(
        watch(
            cluster,
            CachedKind::Pods,
            (Api::<Lenient<PartialObjectMeta<Pod>>>::all(client.clone()), on_this_node),
            &state.pods,
            |pod| Some(PodInfo::of(pod.meta())),
            |event| state.newly_scheduled.observe(event, &state.pods),
        ),
        watch(
            cluster,
            CachedKind::Pools,
            (Api::<Lenient<AddressPool>>::all(client.clone()), Config::default()),
            &state.pools,
            |pool| readable_version(pool, &state.pools),
            |_| {},
        ),
        watch(
            cluster,
            CachedKind::Namespaces,
            (Api::<Lenient<PartialObjectMeta<Namespace>>>::all(client.clone()), Config::default()),
            &state.namespaces,
            |namespace| Some(NamespaceInfo::of(namespace.meta())),
            |_| {},
        ),
    );
}

/// Returns the pool. If the pool can't be decoded, returns its last readable version in the cache.
pub(super) fn readable_version(pool: Lenient<AddressPool>, cached: &ObjectStore<AddressPool>) -> Option<AddressPool> {
    let key = ObjectRef::new(pool.name());
    pool.into_result().ok().or_else(|| cached.get(&key).map(|cached| AddressPool::clone(&cached)))
}

/// Watches the objects of one kind. `info` extracts the fields that the cache keeps. If `info` returns `None`, the cached version of the
/// object stays. `observe` gets each event before the store does.
async fn watch<K, T>(
    cluster: &ClusterCache,
    kind: CachedKind,
    (api, config): (Api<Lenient<K>>, Config),
    store: &ObjectStore<T>,
    info: impl Fn(Lenient<K>) -> Option<T>,
    observe: impl Fn(&Event<T>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
    T: Lookup<DynamicType = ()> + Clone + PartialEq,
{
    let mut events = bobbin_api_client::watch(api, config);
    cluster.objects().watch_ages[kind as usize] = Some(events.age());
    while let Some(event) = events.next().await {
        // `unreadable` logs objects that can't be decoded. The operator publishes Kubernetes events about these objects.
        let _ = cluster.0.unreadable.event(&event);
        let Some(event) = map(event, &info) else { continue };
        observe(&event);
        // The end of a list counts as a change even if the list was empty, because the agent now knows that no other objects exist.
        if store.apply(&event) {
            cluster.notify(kind);
        }
    }
}

/// Applies `info` to the object of an event. Returns `None` if there is no object to cache.
fn map<K, T>(event: Event<K>, info: impl Fn(K) -> Option<T>) -> Option<Event<T>> {
    Some(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(object) => Event::InitApply(info(object)?),
        Event::Apply(object) => Event::Apply(info(object)?),
        Event::Delete(object) => Event::Delete(info(object)?),
    })
}
