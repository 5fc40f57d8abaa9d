//! The agents' status documents: finds the agents' pods, and fetches the documents.

mod fetch;
mod local;

use anyhow::{Context, Result};
use bobbin_api_client::Lenient;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::api::objects;

pub(crate) use fetch::{FetchError, fetch};
pub(crate) use local::read_socket;

/// The label selector of the agents' pods. An agent with the component `agent-remove` removes Bobbin from its node.
const SELECTOR: &str = "app.kubernetes.io/name=bobbin,app.kubernetes.io/component in (agent,agent-remove)";
/// The kind of the controller of the agents' pods.
const CONTROLLER: &str = "DaemonSet";
/// The name that the chart gives to the agent's port for metrics and health.
const PORT: &str = "health";

/// An agent's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgentPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The node of the pod; empty if the pod is not scheduled.
    pub(crate) node: String,
    pub(crate) ready: bool,
    deleting: bool,
    port: Option<u16>,
}

impl AgentPod {
    pub(crate) fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut ports = spec.into_iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            ready: conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            port: ports
                .find(|port| port.name.as_deref() == Some(PORT))
                .and_then(|port| u16::try_from(port.container_port).ok()),
        }
    }

    /// The name of the pod for messages.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Whether a DaemonSet controls the pod. Labels alone don't identify an agent's pod: many users may create pods with any labels, but few
/// may create DaemonSets.
fn is_of_daemon_set(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|one| {
        one.controller == Some(true) && one.kind == CONTROLLER && one.api_version.split('/').next() == Some("apps")
    })
}

/// The agents' pods in Bobbin's namespace, at most one per node: `best` chooses among several pods of a node. With `node`, only the
/// pod of this node.
pub(crate) async fn pods(client: &Client, namespace: &str, node: Option<&str>) -> Result<Vec<AgentPod>> {
    let pods: Api<Lenient<Pod>> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().labels(SELECTOR);
    if let Some(node) = node {
        params = params.fields(&format!("spec.nodeName={node}"));
    }
    let listed = objects::list_with(&pods, params).await?;
    Ok(best(listed.iter().filter(|pod| is_of_daemon_set(pod)).map(AgentPod::of).collect()))
}

/// The agent's pod on a node.
pub(crate) async fn pod_on(client: &Client, namespace: &str, node: &str) -> Result<AgentPod> {
    let found = pods(client, namespace, Some(node)).await?;
    found.into_iter().next().with_context(|| {
        format!(
            "node {node} has no agent in namespace {namespace}, because no pod of a DaemonSet there matches the label selector '{SELECTOR}'. List the agents: kubectl get pods -A -o wide -l '{SELECTOR}'. Name another namespace with --bobbin-namespace"
        )
    })
}

/// Keeps one pod of each node. During an update, a node has an old pod and a new one. A ready pod that is not being deleted comes first.
fn best(mut pods: Vec<AgentPod>) -> Vec<AgentPod> {
    pods.retain(|pod| !pod.node.is_empty());
    pods.sort_by(|one, other| {
        let rank = |pod: &AgentPod| (pod.node.clone(), pod.deleting, !pod.ready, pod.full_name());
        rank(one).cmp(&rank(other))
    });
    pods.dedup_by(|later, first| later.node == first.node);
    pods
}

#[cfg(test)]
mod tests;
