//! One observation of the cluster: the API objects, and the status documents of all agents.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use bobbin_agent_status::AgentStatus;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::deleted_nodes::CONFIG_MAP;
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt};

use crate::agent::{self, AgentPod, FetchError};
use crate::args::GlobalArgs;
use crate::confirm_deletion::DeletedNodes;
use crate::objects;

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
    /// The deleted nodes that the operator knows. Empty if the user may not read them.
    pub(crate) deleted: DeletedNodes,
    /// The views by node. A node without an agent's pod has no entry.
    pub(crate) views: BTreeMap<String, View>,
}

impl Observation {
    /// Observes the cluster. An empty scope means all nodes.
    pub(crate) async fn take(client: &Client, args: &GlobalArgs, scope: &BTreeSet<String>) -> Result<Observation> {
        let mut pods = agent::pods(client, args.namespace.as_deref(), None).await?;
        pods.retain(|pod| scope.is_empty() || scope.contains(&pod.node));
        let views = views(client, pods).await?;
        let nodes: Vec<PartialNode> = objects::list(&Api::<Lenient<PartialNode>>::all(client.clone()), "").await?;
        let pools = objects::list(&Api::<Lenient<AddressPool>>::all(client.clone()), "").await?;
        // Blocks come after assignments, so that a node that has just claimed a block does not lack the block.
        let assignments = objects::list(&Api::<Lenient<IPAssignment>>::all(client.clone()), "").await?;
        let blocks = objects::list(&Api::<Lenient<AddressBlock>>::all(client.clone()), "").await?;
        Ok(Observation {
            nodes: nodes.iter().map(ResourceExt::name_any).collect(),
            pools,
            blocks: blocks.into_iter().map(|block| (block.name_any(), block)).collect(),
            assignments,
            deleted: deleted(client, &args.bobbin_namespace).await,
            views,
        })
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

async fn views(client: &Client, pods: Vec<AgentPod>) -> Result<BTreeMap<String, View>> {
    let fetches = pods.into_iter().map(|pod| async move {
        let answer = agent::fetch(client, &pod).await;
        (pod.node, answer)
    });
    let mut answers = stream::iter(fetches).buffer_unordered(CONCURRENT_FETCHES);
    let mut views = BTreeMap::new();
    while let Some((node, answer)) = answers.next().await {
        let view = match answer {
            Ok(status) => View::Status(Box::new(status)),
            // The user lacks the right for every agent, so the comparison would be empty.
            Err(error @ FetchError::Forbidden(..)) => bail!(error),
            Err(error) => View::Missing(error.to_string()),
        };
        views.insert(node, view);
    }
    Ok(views)
}

/// The operator's list of deleted nodes. Only the details of findings need it, so a user without the right gets the findings without them.
async fn deleted(client: &Client, namespace: &str) -> DeletedNodes {
    let maps: Api<Lenient<ConfigMap>> = Api::namespaced(client.clone(), namespace);
    let map = objects::get(&maps, CONFIG_MAP).await.unwrap_or_default();
    map.map(|map| DeletedNodes::of(&map)).unwrap_or_default()
}
