//! Saves a snapshot of the cache under the run directory shortly after each change, and loads the snapshot once when the agent starts.

use std::path::Path;
use std::time::Duration;

use bobbin_crds::AddressPool;
use serde::{Deserialize, Serialize};

use crate::state::atomic_file;

use super::{ClusterCache, NamespaceInfo, NodeInfo, PodInfo};

/// How long the agent collects changes of the cache before it saves them.
const SAVE_DEBOUNCE: Duration = Duration::from_secs(1);

/// The cached objects that the agent saves.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) node: Option<NodeInfo>,
    pub(super) pods: Vec<PodInfo>,
    pub(super) pools: Vec<AddressPool>,
    /// The namespaces, each with its name, because [`NamespaceInfo::name`] is not saved.
    pub(super) namespaces: Vec<(String, NamespaceInfo)>,
}

/// Loads the snapshot of an earlier run of the agent. Returns an empty snapshot if the file can't be read or belongs to another node.
pub(super) fn load(path: &Path, node_name: &str) -> Snapshot {
    let snapshot = match std::fs::read(path)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(serde_json::from_slice::<Snapshot>(&bytes)?))
    {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "there is no usable cluster snapshot");
            return Snapshot::default();
        }
    };
    if snapshot.node.as_ref().is_some_and(|node| node.name != node_name) {
        return Snapshot::default();
    }
    snapshot
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
            tracing::warn!(%error, path = %cluster.0.snapshot_path.display(), "the agent could not save the cluster snapshot; after a restart without the API server, the agent would know fewer pods, pools and namespaces");
        }
    }
}

pub(super) fn serialize(cluster: &ClusterCache) -> serde_json::Result<Vec<u8>> {
    let state = &cluster.0;
    let namespaces = state.namespaces.all();
    serde_json::to_vec(&Snapshot {
        node: cluster.node(),
        pods: state.pods.all().iter().map(|pod| PodInfo::clone(pod)).collect(),
        pools: state.pools.all().iter().map(|pool| AddressPool::clone(pool)).collect(),
        namespaces: namespaces
            .iter()
            .map(|namespace| (namespace.name.clone(), NamespaceInfo::clone(namespace)))
            .collect(),
    })
}
