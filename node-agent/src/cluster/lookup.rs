//! Looks up an ADD's pod, namespace and pools in the cache. If the cache lacks an object, the agent waits briefly for the watch, and may
//! then read the object once from the API server.

use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Lenient, ReadError};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{CachedKind, ClusterCache, NamespaceInfo, PodInfo};

/// The timeout for fetching an object that the watch has not shown.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout for fetching an object while the watch does not work. The timeout is short, so that an agent that has just started answers
/// an ADD within 1 s even without an API server.
const FETCH_TIMEOUT_WATCH_DOWN: Duration = Duration::from_millis(400);

/// The result of looking up a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodLookup {
    /// The pod with the requested UID.
    Known(Arc<PodInfo>),
    /// The pod is gone: the API server has no pod of this name, or the pod of this name has another UID.
    NotSeen,
    /// Neither the watch nor the API server returned the pod in time.
    Unreachable,
}

impl ClusterCache {
    /// Returns the pod with this UID. While the watch works, waits up to `wait` for the watch to show the pod. If the watch does not show
    /// the pod or does not work, reads the pod once from the API server.
    ///
    /// If `uid` is empty, always reads the pod from the API server, because the watch may still show an earlier pod of the same name.
    pub async fn pod(&self, namespace: &str, name: &str, uid: &str, wait: Duration) -> PodLookup {
        let mut changed = self.0.pods_changed.subscribe();
        let until = Instant::now() + wait;
        while !uid.is_empty() {
            if let Some(pod) = self.cached_pod(namespace, name, uid) {
                return PodLookup::Known(pod);
            }
            if !self.watch_healthy(CachedKind::Pods) {
                break;
            }
            if !changed_before(&mut changed, until).await {
                break;
            }
        }
        self.fetch_pod(namespace, name, uid).await
    }

    async fn fetch_pod(&self, namespace: &str, name: &str, uid: &str) -> PodLookup {
        let Some(clients) = &self.0.clients else { return PodLookup::Unreachable };
        let api: Api<Lenient<PartialObjectMeta<Pod>>> = Api::namespaced(clients.requests.clone(), namespace);
        match bobbin_api_client::read(self.fetch_timeout(CachedKind::Pods), api.get(name)).await {
            Ok(pod) => {
                let pod = PodInfo::of(pod.meta());
                if uid.is_empty() || pod.is(uid) { PodLookup::Known(Arc::new(pod)) } else { PodLookup::NotSeen }
            }
            Err(ReadError::NotFound) => PodLookup::NotSeen,
            Err(error) => {
                tracing::debug!(namespace, name, %error, "the agent could not fetch the pod from the API server");
                PodLookup::Unreachable
            }
        }
    }

    /// Returns the namespace. While the watch works, waits up to `wait` for the watch to show the namespace. If the watch does not show the
    /// namespace, reads it once from the API server.
    ///
    /// # Errors
    /// Fails if the API server did not answer in time or refused the read. Returns `Ok(None)` if the namespace does not exist.
    pub async fn namespace_or_fetch(
        &self,
        name: &str,
        wait: Duration,
    ) -> Result<Option<Arc<NamespaceInfo>>, ReadError> {
        let until = Instant::now() + wait;
        let mut changed = self.0.changed.subscribe();
        loop {
            if let Some(namespace) = self.namespace(name) {
                return Ok(Some(namespace));
            }
            if !self.watch_healthy(CachedKind::Namespaces) || !changed_before(&mut changed, until).await {
                break;
            }
        }
        let Some(clients) = &self.0.clients else { return Ok(None) };
        let api: Api<Lenient<PartialObjectMeta<Namespace>>> = Api::all(clients.requests.clone());
        match bobbin_api_client::read(self.fetch_timeout(CachedKind::Namespaces), api.get(name)).await {
            Ok(namespace) => Ok(Some(Arc::new(NamespaceInfo::of(namespace.meta())))),
            Err(ReadError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits up to `wait` for the agent's first list of the pools. Does not wait if the cache already contains a pool, for example from a
    /// snapshot. Returns whether the agent has listed the pools or knows a pool.
    pub async fn wait_for_pools(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut changed = self.0.changed.subscribe();
        loop {
            if self.has_synced(CachedKind::Pools) || !self.0.pools.is_empty() {
                return true;
            }
            if !changed_before(&mut changed, until).await {
                return false;
            }
        }
    }

    fn fetch_timeout(&self, kind: CachedKind) -> Duration {
        if self.watch_healthy(kind) { FETCH_TIMEOUT } else { FETCH_TIMEOUT_WATCH_DOWN }
    }
}

/// Waits for a change of the cache, at the latest until the time `until`. Returns whether the cache changed.
async fn changed_before(changed: &mut watch::Receiver<u64>, until: Instant) -> bool {
    matches!(tokio::time::timeout_at(until, changed.changed()).await, Ok(Ok(())))
}
