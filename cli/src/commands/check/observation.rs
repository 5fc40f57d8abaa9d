//! One observation of the cluster: the API objects, and the status documents of all agents.

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use anyhow::Result;
use bobbin_agent_status::AgentStatus;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::deleted_nodes::CONFIG_MAP;
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::compare::{PodName, pods_to_read};
use crate::api::agent::{self, AgentPod, FetchError};
use crate::api::leader::Leader;
use crate::api::objects::{self, Read};
use crate::args::GlobalArgs;
use crate::commands::confirm_deletion::DeletedNodes;
pub(crate) use pods::RunningPod;

/// How many status documents the command fetches at the same time.
const CONCURRENT_FETCHES: usize = 16;

/// What the check knows about an agent.
#[derive(Debug)]
pub(crate) enum View {
    Status(Box<AgentStatus>),
    /// The agent's pod exists, but gave no status document. The text says why.
    Missing(String),
}

/// The API objects and the agents' views.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) pools: Vec<AddressPool>,
    /// The blocks by name.
    pub(crate) blocks: BTreeMap<String, AddressBlock>,
    pub(crate) assignments: Vec<IPAssignment>,
    /// The operator's list of deleted nodes. Empty if the user may not read the list.
    pub(crate) deleted: DeletedNodes,
    /// The views by node. A node without an agent's pod has no entry.
    pub(crate) views: BTreeMap<String, View>,
    /// Whether an operator leads in Bobbin's namespace.
    pub(crate) leader: Leader,
    pub(crate) namespace: String,
    /// The pods whose last ADD failed, but that no longer wait for an address. Empty if the user may not read pods.
    pub(crate) gone_pods: BTreeSet<PodName>,
    /// The running pods of the scope that report addresses. Empty if the user may not list pods.
    pub(crate) running_pods: Vec<RunningPod>,
    /// The objects that exist, but can't be decoded.
    pub(crate) undecodable: Vec<Undecodable>,
    /// The pods of assignments that are void or without an attachment. The check reads them after the assignments, as the operator does.
    pub(crate) pods: BTreeMap<PodName, Read<Pod>>,
}

/// An object that exists, but can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undecodable {
    pub(crate) kind: String,
    /// The name of the resource for kubectl.
    pub(crate) resource: String,
    pub(crate) name: String,
    /// Why it can't be decoded.
    pub(crate) why: String,
}

impl Observation {
    /// Observes the cluster. An empty scope means all nodes.
    pub(crate) async fn take(client: &Client, args: &GlobalArgs, scope: &BTreeSet<String>) -> Result<Observation> {
        // The list of pods may take long, so it comes before the views and objects that are compared with each other. The assignment
        // and the pool of a listed pod's address already exist, so the later lists contain them.
        let running_pods = pods::running(client, scope).await;
        let mut agents = agent::pods(client, &args.bobbin_namespace, None).await?;
        agents.retain(|pod| scope.is_empty() || scope.contains(&pod.node));
        let views = views(client, agents).await?;
        let gone_pods = pods::gone(client, &views).await;
        let mut undecodable = Vec::new();
        let nodes: Vec<PartialNode> = list(client, &mut undecodable).await?;
        let mut nodes: BTreeSet<String> = nodes.iter().map(ResourceExt::name_any).collect();
        // `undecodable` contains only Nodes, because no other objects have been listed yet.
        nodes.extend(undecodable.iter().map(|node| node.name.clone()));
        let pools = list(client, &mut undecodable).await?;
        // The blocks are listed after the assignments, because a node claims a block before it assigns addresses. So the list of blocks
        // shows the owner of each assignment's block.
        let assignments = list(client, &mut undecodable).await?;
        let blocks: Vec<AddressBlock> = list(client, &mut undecodable).await?;
        let mut observed = Observation {
            nodes,
            pools,
            blocks: blocks.into_iter().map(|block| (block.name_any(), block)).collect(),
            assignments,
            deleted: deleted(client, &args.bobbin_namespace).await,
            leader: Leader::read(client, &args.bobbin_namespace).await,
            namespace: args.bobbin_namespace.clone(),
            gone_pods,
            running_pods,
            views,
            undecodable,
            pods: BTreeMap::new(),
        };
        observed.pods = pods::read(client, pods_to_read(&observed, scope)).await;
        Ok(observed)
    }

    /// Whether the node exists, or owns something.
    pub(crate) fn knows(&self, node: &str) -> bool {
        self.nodes.contains(node) || self.owns_something(node)
    }

    /// Whether the node owns a block or has an assignment.
    pub(crate) fn owns_something(&self, node: &str) -> bool {
        self.blocks.values().any(|block| block.spec.node_name.as_deref() == Some(node))
            || self.assignments.iter().any(|one| one.spec.node_name == node)
    }

    /// Whether this object exists, but can't be decoded.
    pub(crate) fn is_undecodable<K: Resource<DynamicType = ()>>(&self, name: &str) -> bool {
        self.undecodable.iter().any(|one| one.name == name && one.kind == K::kind(&()))
    }

    /// How many agents answered.
    pub(crate) fn view_count(&self) -> usize {
        self.statuses().count()
    }

    /// The status documents, by node.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (&str, &AgentStatus)> {
        self.views.iter().filter_map(|(node, view)| match view {
            View::Status(status) => Some((node.as_str(), status.as_ref())),
            View::Missing(_) => None,
        })
    }
}

/// Lists all objects of a kind. Those that can't be decoded go to `undecodable`.
async fn list<K>(client: &Client, undecodable: &mut Vec<Undecodable>) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = objects::list_all(&Api::<Lenient<K>>::all(client.clone()), ListParams::default()).await?;
    let mut readable = Vec::new();
    for object in listed {
        match object.into_result() {
            Ok(object) => readable.push(object),
            Err(unreadable) => undecodable.push(Undecodable {
                kind: K::kind(&()).into_owned(),
                resource: K::plural(&()).into_owned(),
                name: unreadable.name().to_owned(),
                why: unreadable.why,
            }),
        }
    }
    Ok(readable)
}

/// The agents' views. Fails if the user may read none of the agents' documents, because there is then nothing to compare.
async fn views(client: &Client, pods: Vec<AgentPod>) -> Result<BTreeMap<String, View>> {
    let fetches = pods.into_iter().map(|pod| async move {
        let answer = agent::fetch(client, &pod).await;
        (pod.node, answer)
    });
    let mut answers = stream::iter(fetches).buffer_unordered(CONCURRENT_FETCHES);
    let mut views = BTreeMap::new();
    let mut forbidden = Vec::new();
    while let Some((node, answer)) = answers.next().await {
        let view = match answer {
            Ok(status) => View::Status(Box::new(status)),
            Err(error) => {
                let why = error.to_string();
                if matches!(error, FetchError::Forbidden(..)) {
                    forbidden.push(error);
                }
                View::Missing(why)
            }
        };
        views.insert(node, view);
    }
    match forbidden.pop() {
        // No agent's document may be read. The errors differ only in the names of the pods, so one error is enough.
        Some(error) if forbidden.len() + 1 == views.len() => Err(error.into()),
        _ => Ok(views),
    }
}

/// The operator's list of deleted nodes. Only the details of findings need the list, so a user without the right to read the list gets
/// findings without these details.
async fn deleted(client: &Client, namespace: &str) -> DeletedNodes {
    let maps: Api<Lenient<ConfigMap>> = Api::namespaced(client.clone(), namespace);
    let map = objects::get(&maps, CONFIG_MAP).await.unwrap_or_default();
    map.map(|map| DeletedNodes::of(&map)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::response::IntoResponse;
    use http::{StatusCode, Uri};

    fn pod(name: &str) -> AgentPod {
        let pod = serde_json::json!({"metadata": {"name": name, "namespace": "b"}, "spec": {"nodeName": name, "containers": [
            {"name": "agent", "ports": [{"name": "health", "containerPort": 1}]}]}});
        AgentPod::of(&serde_json::from_value::<Pod>(pod).expect("a pod"))
    }

    /// An API server that forbids the pod proxy for every pod except `n1`.
    async fn answer(uri: Uri) -> impl IntoResponse {
        if uri.path() == "/api/v1/namespaces/b/pods/n1:1/proxy/status" {
            (StatusCode::OK, r#"{"node": "n1"}"#)
        } else {
            (StatusCode::FORBIDDEN, "no\u{1b}")
        }
    }

    #[tokio::test]
    async fn only_if_every_agent_is_forbidden_the_check_fails() {
        let client = Client::new(Router::new().fallback(answer), "default");
        let seen = views(&client, ["n1", "n2"].map(pod).into()).await.expect("one agent answers");
        assert!(matches!(&seen["n1"], View::Status(_)));
        assert!(
            matches!(&seen["n2"], View::Missing(why) if why.contains("forbids the pod proxy") && why.contains("no\\u{1b}"))
        );
        assert!(views(&client, ["n2", "n3"].map(pod).into()).await.is_err());
        assert!(views(&client, Vec::new()).await.is_ok_and(|views| views.is_empty()));
    }
}
