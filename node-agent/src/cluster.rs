//! The agent's cache of cluster objects: the agent's Node, the pods on this node, all pools and all namespaces.
//!
//! Watches fill the cache, and a snapshot under the run directory survives restarts. Usually an ADD needs no API read, and works even while
//! the API server is unreachable. The agent never uses the cache to decide who owns a block or an address.

pub(crate) mod freshness;
mod lookup;
mod newly_scheduled;
mod object_store;
mod objects;
pub(crate) mod own_objects;
pub(crate) mod pool_selection;
mod snapshot;
mod watches;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, UnreadableObjects, WatchAge};
use bobbin_crds::AddressPool;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::cluster::freshness::FreshnessTracker;
pub use lookup::PodLookup;
use newly_scheduled::NewlyScheduledPods;
use object_store::ObjectStore;
pub use objects::{IgnoredAnnotations, NamespaceInfo, NodeInfo, PodInfo};

/// The kinds of objects whose watches kube's watcher runs. `own_objects` watches this agent's Node and this node's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedKind {
    /// The metadata of the pods on this node.
    Pods,
    /// All pools.
    Pools,
    /// The metadata of all namespaces.
    Namespaces,
}

const CACHED_KINDS: usize = 3;

/// What has changed in this agent's Node object with one update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// Whether the change casts doubt on the ownership of every block. True if the Node was deleted, was replaced, exists again after a
    /// deletion, or has just got the out-of-service taint.
    pub doubt: bool,
    /// Whether the Node's UID changed.
    pub replaced: bool,
    /// Whether anything in the Node changed.
    pub any: bool,
}

/// The agent's cache of cluster objects. Cheap to clone.
#[derive(Clone)]
pub struct ClusterCache(Arc<CacheState>);

struct CacheState {
    node_name: String,
    clients: Option<Clients>,
    snapshot_path: PathBuf,
    pods: ObjectStore<PodInfo>,
    pools: ObjectStore<AddressPool>,
    namespaces: ObjectStore<NamespaceInfo>,
    newly_scheduled: NewlyScheduledPods,
    objects: Mutex<CachedObjects>,
    changed: watch::Sender<u64>,
    pods_changed: watch::Sender<u64>,
    freshness: Arc<FreshnessTracker>,
    unreadable: UnreadableObjects,
}

/// The cached data that is not in an [`ObjectStore`].
#[derive(Default)]
struct CachedObjects {
    node: Option<NodeInfo>,
    /// True if the API server has no Node object with this agent's node name.
    node_deleted: bool,
    /// How many updates of this agent's Node the cache has received.
    node_updates: u64,
    /// Whether the agent, since its start, has read this node's blocks and added missing blocks to the node's state.
    own_blocks_known: bool,
    watch_ages: [Option<WatchAge>; CACHED_KINDS],
    /// How current the watch of this node's assignments is. This watch fills no cache.
    assignments_age: Option<WatchAge>,
}

/// Whether `one` and `other` are versions of the same pool, and `one` is the later version.
fn is_later(one: &AddressPool, other: &AddressPool) -> bool {
    let version =
        |pool: &AddressPool| pool.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
    one.metadata.uid == other.metadata.uid && version(one) > version(other)
}

impl ClusterCache {
    /// Opens the cache and fills it with the snapshot that an earlier run saved under `run_dir`. A missing or unreadable snapshot counts as
    /// empty.
    pub fn open(clients: Clients, node_name: &str, run_dir: &Path, freshness: Arc<FreshnessTracker>) -> ClusterCache {
        Self::with(Some(clients), node_name, run_dir, freshness)
    }

    fn with(
        clients: Option<Clients>,
        node_name: &str,
        run_dir: &Path,
        freshness: Arc<FreshnessTracker>,
    ) -> ClusterCache {
        let snapshot_path = run_dir.join(crate::state::layout::CLUSTER_SNAPSHOT);
        let saved = snapshot::load(&snapshot_path, node_name);
        let cluster = ClusterCache(Arc::new(CacheState {
            node_name: node_name.to_owned(),
            clients,
            snapshot_path,
            pods: ObjectStore::default(),
            pools: ObjectStore::default(),
            namespaces: ObjectStore::default(),
            newly_scheduled: NewlyScheduledPods::default(),
            objects: Mutex::new(CachedObjects { node: saved.node, ..CachedObjects::default() }),
            changed: watch::channel(0).0,
            pods_changed: watch::channel(0).0,
            freshness,
            unreadable: UnreadableObjects::default(),
        }));
        cluster.fill(saved.pods, saved.pools, saved.namespaces);
        cluster
    }

    /// Adds the objects of a snapshot, so that the agent knows these objects before its watches have listed any objects.
    fn fill(&self, pods: Vec<PodInfo>, pools: Vec<AddressPool>, namespaces: Vec<(String, NamespaceInfo)>) {
        for pod in pods {
            self.0.pods.apply(&Event::Apply(pod));
        }
        for pool in pools {
            self.0.pools.apply(&Event::Apply(pool));
        }
        for (name, namespace) in namespaces {
            self.0.namespaces.apply(&Event::Apply(NamespaceInfo { name, ..namespace }));
        }
    }

    /// Watches the cluster's objects and saves snapshots until the caller drops the future.
    pub async fn run(&self) {
        let Some(clients) = self.0.clients.clone() else { return };
        tokio::join!(watches::run(self, &clients), snapshot::save_on_change(self));
    }

    /// The cached pod of this name, if it has this UID. For a mirror pod, the UID that kubelet uses for the static pod also matches.
    pub fn cached_pod(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<PodInfo>> {
        self.cached_pod_by_name(namespace, name).filter(|pod| pod.is(uid))
    }

    /// The cached pod of this name, whatever its UID is.
    pub fn cached_pod_by_name(&self, namespace: &str, name: &str) -> Option<Arc<PodInfo>> {
        self.0.pods.get(&ObjectRef::new(name).within(namespace))
    }

    /// The cached version of the namespace, from the watch or from a snapshot.
    pub fn namespace(&self, name: &str) -> Option<Arc<NamespaceInfo>> {
        self.0.namespaces.get(&ObjectRef::new(name))
    }

    /// The cached version of the pool, from a watch, a LIST response or a snapshot.
    pub fn pool(&self, name: &str) -> Option<Arc<AddressPool>> {
        self.0.pools.get(&ObjectRef::new(name))
    }

    /// Replaces the cached pools with the pools of a consistent LIST response. A pool that can't be decoded keeps its last readable
    /// version.
    pub fn update_pools(&self, listed: Vec<Lenient<AddressPool>>) {
        let readable = |pool| watches::readable_version(pool, &self.0.pools);
        // While the agent read the list, the watch may have shown a later version of a pool. `is_later` keeps that version.
        if self.0.pools.replace(listed.into_iter().filter_map(readable).collect(), is_later) {
            self.notify(CachedKind::Pools);
        }
    }

    /// All cached pools, sorted by name.
    pub fn pools(&self) -> Vec<Arc<AddressPool>> {
        let mut pools = self.0.pools.all();
        pools.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        pools
    }

    /// Whether the agent has listed all objects of this kind at least once. If so, an object that is missing in the cache does not
    /// exist.
    pub fn has_synced(&self, kind: CachedKind) -> bool {
        self.objects().watch_ages[kind as usize].as_ref().is_some_and(WatchAge::synced)
    }

    /// The Node object of this agent. Returns `None` if the agent has never seen the object.
    pub fn node(&self) -> Option<NodeInfo> {
        self.objects().node.clone()
    }

    /// Updates the cached Node of this agent. `seen` is the Node that a read or the watch returned. It is `None` if the Node does not
    /// exist.
    ///
    /// `as_of` is the [count of updates](Self::node_updates) when the read began, or `None` if the watch returned `seen`. If another update
    /// arrived during the read, it may be newer than `seen`, so the cache keeps that update.
    pub fn update_node(&self, seen: Option<NodeInfo>, as_of: Option<u64>) -> NodeChange {
        let mut objects = self.objects();
        if as_of.is_some_and(|as_of| as_of != objects.node_updates) && objects.node.is_some() {
            return NodeChange::default();
        }
        objects.node_updates += 1;
        let was_deleted = std::mem::replace(&mut objects.node_deleted, seen.is_none());
        let change = match (&seen, &objects.node) {
            (None, _) => NodeChange { doubt: !was_deleted, replaced: false, any: !was_deleted },
            (Some(seen), known) => {
                let replaced = known.as_ref().is_some_and(|known| known.uid != seen.uid);
                let returned = was_deleted;
                let switched_off = seen.out_of_service && known.as_ref().is_none_or(|known| !known.out_of_service);
                let any = returned || known.as_ref() != Some(seen);
                NodeChange { doubt: replaced || returned || switched_off, replaced, any }
            }
        };
        // The cache keeps the last version of a deleted Node, including its UID.
        if seen.is_some() {
            objects.node = seen;
        }
        drop(objects);
        if change.any {
            self.0.changed.send_modify(|count| *count += 1);
        }
        change
    }

    /// How many updates of this agent's Node the cache has received.
    pub fn node_updates(&self) -> u64 {
        self.objects().node_updates
    }

    /// Whether this agent's Node was deleted or is out of service. If so, the agent claims no block and assigns no address.
    pub fn node_is_gone(&self) -> bool {
        let objects = self.objects();
        objects.node_deleted || objects.node.as_ref().is_some_and(|node| node.out_of_service)
    }

    /// Records that the agent has read this node's blocks and added them to the node's state.
    pub fn set_own_blocks_known(&self) {
        self.objects().own_blocks_known = true;
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// Whether the agent, since its start, has read this node's blocks and added them to the node's state.
    pub fn own_blocks_known(&self) -> bool {
        self.objects().own_blocks_known
    }

    /// The watched objects that can't be decoded.
    pub fn unreadable(&self) -> &UnreadableObjects {
        &self.0.unreadable
    }

    /// How fresh the API server's answers are.
    pub fn freshness(&self) -> &FreshnessTracker {
        &self.0.freshness
    }

    /// The name of this agent's Node.
    pub fn node_name(&self) -> &str {
        &self.0.node_name
    }

    /// Takes the pods that were scheduled to this node since the last call, so that the agent can claim a block before the pods' ADDs.
    pub fn take_newly_scheduled(&self) -> Vec<Arc<PodInfo>> {
        self.0.newly_scheduled.take()
    }

    /// Reports every change of the cache.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Whether all watches work and the API server answered the agent's most recent call.
    pub fn api_healthy(&self) -> bool {
        self.objects().watch_ages.iter().all(|age| age.as_ref().is_some_and(is_healthy)) && !self.0.freshness.failing()
    }

    fn watch_healthy(&self, kind: CachedKind) -> bool {
        self.objects().watch_ages[kind as usize].as_ref().is_some_and(is_healthy)
    }

    fn objects(&self) -> MutexGuard<'_, CachedObjects> {
        self.0.objects.lock()
    }

    fn notify(&self, kind: CachedKind) {
        if kind == CachedKind::Pods {
            self.0.pods_changed.send_modify(|count| *count += 1);
        }
        self.0.changed.send_modify(|count| *count += 1);
    }
}

/// Whether a watch has listed its objects at least once and is not failing.
fn is_healthy(age: &WatchAge) -> bool {
    age.synced() && age.failing().is_none()
}

/// How long a freed address of a pool cools down. Returns the default if the pool is unknown.
pub fn cooldown_of(pool: Option<&AddressPool>) -> Duration {
    pool.map_or(bobbin_crds::DEFAULT_COOLDOWN, |pool| pool.spec.cooldown())
}

#[cfg(test)]
mod tests;
