//! The cache's snapshot under the run directory: saved shortly after a change, loaded once at start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_crds::AddressPool;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::state::atomic_file;

use super::{CachedObjects, ClusterCache, NamespaceInfo, NodeInfo, PodInfo};

/// How long changes of the cache are collected before they are saved.
const SAVE_DEBOUNCE: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Snapshot {
    node: Option<NodeInfo>,
    pods: Vec<PodInfo>,
    pools: Vec<AddressPool>,
    namespaces: Vec<(String, NamespaceInfo)>,
}

/// Loads the snapshot of an earlier run of the agent. Returns an empty cache if there is no snapshot, or if it belongs to another node.
pub(super) fn load(path: &Path, node_name: &str) -> CachedObjects {
    let snapshot = match std::fs::read(path)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(serde_json::from_slice::<Snapshot>(&bytes)?))
    {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "the agent found no usable cluster snapshot, so its cache starts empty");
            return CachedObjects::default();
        }
    };
    if snapshot.node.as_ref().is_some_and(|node| node.name != node_name) {
        return CachedObjects::default();
    }
    CachedObjects {
        node: snapshot.node,
        pods: snapshot.pods.into_iter().map(|pod| ((pod.namespace.clone(), pod.name.clone()), pod)).collect(),
        pools: snapshot.pools.into_iter().map(|pool| (pool.name_any(), Arc::new(pool))).collect(),
        namespaces: snapshot.namespaces.into_iter().collect(),
        ..CachedObjects::default()
    }
}

/// Saves a snapshot after each change, at most once a second.
pub(super) async fn save_on_change(cluster: &ClusterCache) {
    let mut changed = cluster.changed();
    while changed.changed().await.is_ok() {
        tokio::time::sleep(SAVE_DEBOUNCE).await;
        changed.mark_unchanged();
        let bytes = match serialize(cluster) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "the agent could not serialize the cluster snapshot");
                continue;
            }
        };
        let path = cluster.0.snapshot_path.clone();
        let written = tokio::task::spawn_blocking(move || atomic_file::replace(&path, &bytes, 0o600)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, path = %cluster.0.snapshot_path.display(), "the agent could not save the cluster snapshot; after a restart without the API server it would know fewer pods, pools and namespaces");
        }
    }
}

pub(super) fn serialize(cluster: &ClusterCache) -> serde_json::Result<Vec<u8>> {
    let snapshot = {
        let objects = cluster.objects();
        Snapshot {
            node: objects.node.clone(),
            pods: objects.pods.values().cloned().collect(),
            pools: objects.pools.values().map(|pool| pool.as_ref().clone()).collect(),
            namespaces: objects.namespaces.iter().map(|(name, namespace)| (name.clone(), namespace.clone())).collect(),
        }
    };
    serde_json::to_vec(&snapshot)
}
