//! Evicts the pods that have addresses of a draining pool.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use bobbin_api_client::pod::MIRROR;
use bobbin_api_client::{Lenient, Refusal, UnknownWhy};
use futures::TryFutureExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::outcome::{Outcome, lines};
use super::{Holder, PodOf, budget};
use crate::api::objects::{self, WriteError};
use crate::api::selection::{is_of, select};

/// The HTTP status of an eviction that a PodDisruptionBudget forbids now.
const TOO_MANY_REQUESTS: u16 = 429;
/// A part of the API server's message if several budgets select the pod (file eviction.go). The status code is 500.
const SEVERAL_BUDGETS: &str = "more than one PodDisruptionBudget";

/// The evictions that the command has requested.
pub(super) struct Evictions {
    pool: String,
    /// Whether to evict also pods that would not come back.
    force: bool,
    /// The pods with a final outcome: evicted, already ending or gone, or not to be evicted.
    settled: BTreeSet<String>,
    /// The last refusal that was reported to the user, for each pod.
    refused: BTreeMap<String, Outcome>,
}

impl Evictions {
    pub(super) fn new(pool: &str, force: bool) -> Self {
        Self { pool: pool.to_owned(), force, settled: BTreeSet::new(), refused: BTreeMap::new() }
    }

    /// Requests the eviction of each pod. A later call repeats only requests that the API server refused for now. Returns what to
    /// tell the user.
    ///
    /// # Errors
    /// Fails if a call fails in a way that a retry does not change, for example because the user may not evict pods.
    pub(super) async fn request(&mut self, client: &Client, held: &[Holder]) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for holder in held.iter().filter_map(Holder::pod) {
            let pod = format!("{}/{}", holder.namespace, holder.name);
            let key = holder.uid.clone().unwrap_or_else(|| pod.clone());
            if self.settled.contains(&key) {
                continue;
            }
            let outcome = self.evict(client, holder).await?;
            if outcome.is_final() {
                self.settled.insert(key);
            } else if self.refused.get(&key) == Some(&outcome) {
                continue;
            } else {
                self.refused.insert(key, outcome.clone());
            }
            said.push((pod, outcome));
        }
        Ok(lines(said, &self.pool))
    }

    async fn evict(&self, client: &Client, pod: &PodOf) -> Result<Outcome> {
        let PodOf { namespace, name, uid } = pod;
        let pods: Api<Lenient<Pod>> = Api::namespaced(client.clone(), namespace);
        let Some(pod) = objects::get(&pods, name).await? else {
            return Ok(Outcome::Gone);
        };
        if pod.metadata.deletion_timestamp.is_some() || !is_of(&pod, uid.as_deref()) {
            return Ok(Outcome::Ending);
        }
        if pod.annotations().contains_key(MIRROR) {
            return Ok(Outcome::StaticPod);
        }
        if uid.is_none() {
            return Ok(Outcome::UidUnknown);
        }
        if !self.force
            && let Some(kept) = self.would_not_come_back(client, namespace, &pod).await?
        {
            return Ok(kept);
        }
        // The precondition prevents the eviction of a new pod with the same name.
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
        let delete_options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let params = EvictParams { delete_options: Some(delete_options), ..EvictParams::default() };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        match objects::written(pods.evict(name, &params).map_err(budget::named)).await {
            Ok(_) => Ok(Outcome::Evicted),
            // The pod does not exist any more, or another pod has its name.
            Err(WriteError::Refused(Refusal::NotFound | Refusal::Conflict)) => Ok(Outcome::Ending),
            Err(WriteError::Unknown(UnknownWhy::Server(_, message))) if message.contains(SEVERAL_BUDGETS) => {
                Ok(Outcome::SeveralBudgets)
            }
            Err(WriteError::Unknown(UnknownWhy::Server(code, message))) if code == TOO_MANY_REQUESTS || code >= 500 => {
                Ok(Outcome::Refused(message))
            }
            Err(error) => Err(error).with_context(|| format!("can't evict pod {namespace}/{name}")),
        }
    }

    /// Why the pod is not evicted without `--force`: it has no controller, or its replacement would also select the
    /// draining pool. Returns `None` if the replacement would select another pool.
    async fn would_not_come_back(&self, client: &Client, namespace: &str, pod: &Pod) -> Result<Option<Outcome>> {
        if pod.owner_references().iter().all(|owner| owner.controller != Some(true)) {
            return Ok(Some(Outcome::NoController));
        }
        let selected = match select(client, namespace, pod).await? {
            Ok(selection) => selection.pool,
            Err(error) => error.selection.pool,
        };
        Ok((selected == self.pool).then_some(Outcome::SamePool))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use axum::{Json, Router};
    use http::{Method, StatusCode};
    use serde_json::json;

    use super::*;

    /// The answers of an API server that has a pod with a controller, and refuses its eviction because of a PodDisruptionBudget.
    async fn answer(method: Method) -> impl IntoResponse {
        if method == Method::GET {
            let owner =
                json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true});
            let pod = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u", "ownerReferences": [owner]}});
            return (StatusCode::OK, Json(pod));
        }
        let cause = json!({"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods"});
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 429,
            "reason": "TooManyRequests", "message": "Cannot evict pod.", "details": {"causes": [cause]}});
        (StatusCode::TOO_MANY_REQUESTS, Json(status))
    }

    #[tokio::test]
    async fn a_refusal_names_the_budget_and_is_told_once() {
        let client = Client::new(Router::new().fallback(answer), "default");
        let pod = PodOf { namespace: "shop".to_owned(), name: "web".to_owned(), uid: Some("u".to_owned()) };
        let held = [Holder::Attachment { address: None, pod: Some(pod), node: "n1".to_owned() }];
        let mut evictions = Evictions::new("p", true);
        let said = evictions.request(&client, &held).await.expect("the API server answers");
        let expected =
            "pod shop/web is not evicted yet: Cannot evict pod: The disruption budget web needs 2 healthy pods";
        assert_eq!(said, [expected]);
        assert!(evictions.request(&client, &held).await.expect("the API server answers").is_empty());
    }
}
