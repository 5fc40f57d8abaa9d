//! The view's copy under the run directory: written a moment after a change, read once at start. An unreadable copy is no copy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_crds::AddressPool;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::state::atomic_file;

use super::{ClusterView, Facts, NamespaceInfo, NodeInfo, PodInfo};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Copy {
    node: Option<NodeInfo>,
    pods: Vec<PodInfo>,
    pools: Vec<AddressPool>,
    namespaces: Vec<(String, NamespaceInfo)>,
}

/// What the last run kept; nothing, if it was another node's.
pub(super) fn load(path: &Path, node_name: &str) -> Facts {
    let copy = match std::fs::read(path)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(serde_json::from_slice::<Copy>(&bytes)?))
    {
        Ok(copy) => copy,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "no kept view of the cluster");
            return Facts::default();
        }
    };
    if copy.node.as_ref().is_some_and(|node| node.name != node_name) {
        return Facts::default();
    }
    Facts {
        node: copy.node,
        pods: copy.pods.into_iter().map(|pod| ((pod.namespace.clone(), pod.name.clone()), pod)).collect(),
        pools: copy.pools.into_iter().map(|pool| (pool.name_any(), Arc::new(pool))).collect(),
        namespaces: copy.namespaces.into_iter().collect(),
        ..Facts::default()
    }
}

/// Writes the copy after each change, at most once a second.
pub(super) async fn keep(view: &ClusterView) {
    let mut changed = view.changed();
    while changed.changed().await.is_ok() {
        tokio::time::sleep(GATHER).await;
        changed.mark_unchanged();
        let bytes = match bytes(view) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "the view of the cluster could not be written down");
                continue;
            }
        };
        let path = view.0.saved.clone();
        let written = tokio::task::spawn_blocking(move || atomic_file::replace(&path, &bytes, 0o600)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, path = %view.0.saved.display(), "the view of the cluster could not be kept; a restart without the API server would know less");
        }
    }
}

pub(super) fn bytes(view: &ClusterView) -> serde_json::Result<Vec<u8>> {
    let copy = {
        let facts = view.facts();
        // Nothing was listed yet: keep what an earlier run wrote.
        Copy {
            node: facts.node.clone(),
            pods: facts.pods.values().cloned().collect(),
            pools: facts.pools.values().map(|pool| pool.as_ref().clone()).collect(),
            namespaces: facts.namespaces.iter().map(|(name, facts)| (name.clone(), facts.clone())).collect(),
        }
    };
    serde_json::to_vec(&copy)
}
