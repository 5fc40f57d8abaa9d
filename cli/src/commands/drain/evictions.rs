//! Evicts the pods that have addresses of a draining pool.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use bobbin_api_client::{Lenient, Refusal, UnknownWhy};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::{Holder, PodOf};
use crate::api::objects::{self, WriteError};
use crate::api::selection::{MIRROR, is_of, select};

/// The HTTP status of an eviction that a PodDisruptionBudget forbids now.
const TOO_MANY_REQUESTS: u16 = 429;

/// The evictions that the command has requested.
pub(super) struct Evictions {
    pool: String,
    /// Whether to evict also pods that would not come back.
    force: bool,
    /// The pods whose eviction the API server accepted, and those that the command must not evict.
    settled: BTreeSet<String>,
    /// The last refusal of each pod that was reported.
    refused: BTreeMap<String, String>,
}

/// The outcome of one eviction.
enum Eviction {
    /// The command does nothing more about the pod.
    Settled(String),
    /// The API server refuses the eviction now. The command tries again.
    Refused(String),
}

impl Evictions {
    pub(super) fn new(pool: &str, force: bool) -> Self {
        Self { pool: pool.to_owned(), force, settled: BTreeSet::new(), refused: BTreeMap::new() }
    }

    /// Requests the eviction of each pod once, and again if the API server refused it for now. Returns what to tell the user.
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
            match self.evict(client, holder).await? {
                Eviction::Settled(what) => {
                    said.push(format!("pod {pod} {what}"));
                    self.settled.insert(key);
                }
                Eviction::Refused(why) if self.refused.get(&key) != Some(&why) => {
                    said.push(format!("pod {pod} is not evicted yet: {why}"));
                    self.refused.insert(key, why);
                }
                Eviction::Refused(_) => {}
            }
        }
        Ok(said)
    }

    async fn evict(&self, client: &Client, pod: &PodOf) -> Result<Eviction> {
        let PodOf { namespace, name, uid } = pod;
        let pods: Api<Lenient<Pod>> = Api::namespaced(client.clone(), namespace);
        let Some(pod) = objects::get(&pods, name).await? else {
            return Ok(Eviction::Settled("does not exist any more; its address is released later".to_owned()));
        };
        if pod.metadata.deletion_timestamp.is_some() || !is_of(&pod, uid.as_deref()) {
            return Ok(Eviction::Settled("is ending".to_owned()));
        }
        if pod.annotations().contains_key(MIRROR) {
            return Ok(Eviction::Settled(
                "is not evicted: it is a static pod. Remove its manifest from the node".to_owned(),
            ));
        }
        if uid.is_none() {
            return Ok(Eviction::Settled(
                "is not evicted: its IPAssignment does not say which pod of this name has the address. Delete the pod"
                    .to_owned(),
            ));
        }
        if !self.force
            && let Some(why) = self.would_not_come_back(client, namespace, &pod).await?
        {
            return Ok(Eviction::Settled(format!("is not evicted: {why}, or use --force")));
        }
        // The precondition keeps a new pod of the same name.
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
        let delete_options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let params = EvictParams { delete_options: Some(delete_options), ..EvictParams::default() };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        match objects::written(pods.evict(name, &params)).await {
            Ok(_) => Ok(Eviction::Settled("is evicted".to_owned())),
            // The pod does not exist any more, or another pod has its name.
            Err(WriteError::Refused(Refusal::NotFound | Refusal::Conflict)) => {
                Ok(Eviction::Settled("is ending".to_owned()))
            }
            Err(WriteError::Unknown(UnknownWhy::Server(code, message))) if code == TOO_MANY_REQUESTS || code >= 500 => {
                Ok(Eviction::Refused(message))
            }
            Err(error) => Err(error).with_context(|| format!("can't evict pod {namespace}/{name}")),
        }
    }

    /// Why no pod with an address would replace the pod, and what to do.
    async fn would_not_come_back(&self, client: &Client, namespace: &str, pod: &Pod) -> Result<Option<String>> {
        if pod.owner_references().iter().all(|owner| owner.controller != Some(true)) {
            return Ok(Some("it has no controller that would create it again. Delete it".to_owned()));
        }
        let selected = match select(client, namespace, pod).await? {
            Ok(selection) => selection.pool,
            Err(error) => error.selection.pool,
        };
        Ok((selected == self.pool).then(|| {
            format!(
                "its replacement would select AddressPool {} again and get no address. Change the annotation bobbin.dev/pool of the workload or of the namespace first",
                self.pool
            )
        }))
    }
}
