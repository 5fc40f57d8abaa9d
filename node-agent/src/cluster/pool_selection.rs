//! Selects the pool of a pod from the cached objects. The selection rule is in `ipam::pool_selection`.

use std::collections::BTreeMap;
use std::time::Duration;

use bobbin_api_client::ReadError;
use bobbin_cni_wire::{CniError, code};
use bobbin_crds::AddressPool;
use bobbin_ipam::pool_selection::{self, PoolInfo, PoolSelection, SelectionError};
use bobbin_ipam::pool_shape::{accepted_entries, is_accepted};
use bobbin_ipam::{BlockRange, SubnetPair};

use crate::args::UnknownPod;
use crate::cluster::{ClusterCache, NamespaceInfo, NodeInfo, PodInfo, PodLookup};
use crate::state::PodRef;

/// How long an ADD waits for the watches to show its pod, its namespace or the pools.
const WATCH_WAIT: Duration = Duration::from_millis(300);

/// Why the agent could not select a pool.
#[derive(Debug, thiserror::Error)]
pub enum SelectPoolError {
    /// The selected pool gives the pod no address; a retry alone does not help.
    #[error("{pod} gets no address: {refusal}")]
    Refused {
        /// A description of the pod, for messages.
        pod: String,
        /// Why the pool gives the pod no address.
        refusal: SelectionError,
    },
    /// The API server has no such pod: it was deleted, or the API server does not show it yet.
    #[error(
        "{0} gets no address: the API server has no pod of that name and UID. Either the pod was deleted or replaced, or the API server does not show it yet. If the pod still exists, the runtime's next try succeeds"
    )]
    PodGone(String),
    /// The agent can't determine the pod's pool.
    #[error(
        "{0} gets no address: the agent can't determine the pod's pool while the API server is unreachable; the runtime retries. With --unknown-pod=default the agent uses the namespace's pool, or the pool \"default\" if the agent does not know the namespace"
    )]
    Unreachable(String),
}

impl SelectPoolError {
    /// The CNI error that the runtime gets.
    pub fn to_cni(&self) -> CniError {
        let code = match self {
            SelectPoolError::Refused { .. } => code::POOL_REFUSED,
            SelectPoolError::PodGone(_) | SelectPoolError::Unreachable(_) => code::TRY_AGAIN_LATER,
        };
        CniError::new(code, self.to_string())
    }
}

/// The result of the pool selection for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedPool {
    /// The selected pool, and the reason for its selection.
    pub selection: PoolSelection,
    /// The pod as the runtime named it. If the runtime passed no UID, the agent fills in the UID.
    pub pod: PodRef,
    /// Whether the API server showed this agent a pod of this UID. The value is never true for a static pod, because its mirror pod has
    /// another UID.
    pub pod_seen: bool,
}

/// Selects the pool for a pod on this node. If the runtime named no pod (as cnitool does), the pool is `default`.
///
/// The selection makes no call to the API server if the watches are up to date and the runtime passed the pod's UID.
///
/// # Errors
/// See [`SelectPoolError`].
pub async fn select_pool_for_pod(
    cluster: &ClusterCache,
    pod: &PodRef,
    unknown: UnknownPod,
) -> Result<SelectedPool, SelectPoolError> {
    let words = match pod.name.as_str() {
        "" => "a call without K8S_POD_NAME".to_owned(),
        name => format!("pod {}/{name} on node {}", pod.namespace, cluster.node_name()),
    };
    // An agent that has not listed the pools and knows none can't say whether the pod's pool exists. So the runtime should retry.
    if !cluster.wait_for_pools(WATCH_WAIT).await {
        return Err(SelectPoolError::Unreachable(words));
    }
    if pod.name.is_empty() {
        let selection = decide(cluster, &words, None, None)?;
        return Ok(SelectedPool { selection, pod: pod.clone(), pod_seen: false });
    }
    let (info, pod, pod_seen) = match cluster.pod(&pod.namespace, &pod.name, &pod.uid, WATCH_WAIT).await {
        PodLookup::Known(found) => {
            let named = with_kubelet_uid(pod, &found);
            // A pod that the agent found by its name alone may run on another node. Such a pod counts as seen only if it is in the cache,
            // because the watch shows only the pods of this node.
            let on_node = || cluster.cached_pod(&named.namespace, &named.name, &named.uid).is_some();
            let seen = found.uid == named.uid && (!pod.uid.is_empty() || on_node());
            (Some(found), named, seen)
        }
        PodLookup::NotSeen => return Err(SelectPoolError::PodGone(words)),
        // Without a UID, the cached pod of this name is the best guess for the pool annotation. The cached pod may be an earlier pod of
        // this name.
        PodLookup::Unreachable => {
            let last_seen = pod.uid.is_empty().then(|| cluster.cached_pod_by_name(&pod.namespace, &pod.name)).flatten();
            // Without `--unknown-pod=default`, refuse an unknown pod, because its annotation may name a pool. A static pod must start even
            // without an API server, so it gets the pool of its namespace.
            if last_seen.is_none() && unknown == UnknownPod::Refuse && !pod.is_static() {
                return Err(SelectPoolError::Unreachable(words));
            }
            (last_seen, pod.clone(), false)
        }
    };
    let selection = match cluster.namespace_or_fetch(&pod.namespace, WATCH_WAIT).await {
        Ok(namespace) => decide(cluster, &words, info.as_deref(), Some((&pod.namespace, namespace.as_deref()))),
        Err(error) => unknown_namespace(cluster, words, &error, info.as_deref(), unknown),
    }?;
    Ok(SelectedPool { selection, pod, pod_seen })
}

/// Returns the pod as the runtime named it. If the runtime passed no UID, fills in the UID that kubelet uses for the pod.
fn with_kubelet_uid(pod: &PodRef, found: &PodInfo) -> PodRef {
    let uid = match pod.uid.as_str() {
        "" => found.kubelet_uid.clone().unwrap_or_else(|| found.uid.clone()),
        uid => uid.to_owned(),
    };
    PodRef { uid, ..pod.clone() }
}

fn unknown_namespace(
    cluster: &ClusterCache,
    words: String,
    error: &ReadError,
    pod: Option<&PodInfo>,
    unknown: UnknownPod,
) -> Result<PoolSelection, SelectPoolError> {
    tracing::debug!(%error, "{words}: the agent could not read the pod's namespace");
    if unknown == UnknownPod::Refuse && pod.and_then(|pod| pod.pool.as_ref()).is_none() {
        return Err(SelectPoolError::Unreachable(words));
    }
    decide(cluster, &words, pod, None)
}

/// The pool that the ADD of a newly scheduled pod will probably use. Returns `None` if the cache lacks the pod's namespace, or if the
/// selection refuses the pod.
pub fn expected_pool(cluster: &ClusterCache, pod: &PodInfo) -> Option<String> {
    let namespace = cluster.namespace(&pod.namespace)?;
    decide(cluster, "an expected pod", Some(pod), Some((&pod.namespace, Some(&namespace))))
        .ok()
        .map(|selection| selection.pool)
}

fn decide(
    cluster: &ClusterCache,
    words: &str,
    pod: Option<&PodInfo>,
    namespace: Option<(&str, Option<&NamespaceInfo>)>,
) -> Result<PoolSelection, SelectPoolError> {
    let node = cluster.node();
    let pools: BTreeMap<String, _> =
        cluster.pools().into_iter().map(|pool| (pool_name(&pool).to_owned(), pool)).collect();
    let info = namespace.and_then(|(_, info)| info);
    pool_selection::select_pool(
        pod.and_then(|pod| pod.pool.as_deref()),
        info.and_then(|info| info.pool.as_deref()),
        namespace.map(|(name, _)| name),
        |name| pools.get(name).map(|pool| pool_info(pool, info, node.as_ref())),
    )
    .map_err(|refusal| SelectPoolError::Refused { pod: words.to_owned(), refusal })
}

/// Whether a subnet of the pool's spec contains the block. A subnet that can't be parsed counts as containing the block.
pub fn has_subnet_of(pool: &AddressPool, block: &BlockRange) -> bool {
    pool.spec.subnets.iter().any(|entry| {
        SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref()).map_or(true, |subnet| block.is_within(&subnet))
    })
}

/// The pool with only those entries of `spec.subnets` that the operator has accepted. All other entries have no blocks.
pub fn with_accepted_subnets(pool: &AddressPool) -> AddressPool {
    let listed = accepted_entries(pool.status.as_ref());
    let mut pool = pool.clone();
    pool.spec.subnets.retain(|entry| listed.iter().any(|listed| is_accepted(listed, entry)));
    pool
}

/// The properties of a pool that the selection needs.
pub fn pool_info<'a>(
    pool: &'a AddressPool,
    namespace: Option<&NamespaceInfo>,
    node: Option<&NodeInfo>,
) -> PoolInfo<'a> {
    let nothing = BTreeMap::new();
    PoolInfo::of(
        pool,
        namespace.map_or(&nothing, |namespace| &namespace.labels),
        node.map_or(&nothing, |node| &node.labels),
    )
}

fn pool_name(pool: &AddressPool) -> &str {
    pool.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
