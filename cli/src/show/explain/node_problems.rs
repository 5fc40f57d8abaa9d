//! What is wrong with the node of a pod that waits for an address.

use bobbin_agent_status::{AgentMode, AgentStatus};
use bobbin_api_client::Lenient;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt};

use crate::api::agent::{self, FetchError};
use crate::api::objects;

/// The condition with which kubelet says that the node can start pods.
const READY: &str = "Ready";

/// The problems of the node and of its agent. If the user may read only one of the two, returns only the problems of that one.
pub(super) async fn node_problems(client: &Client, bobbin_namespace: &str, node: &str) -> Vec<String> {
    let nodes: Api<Lenient<Node>> = Api::all(client.clone());
    let mut problems: Vec<String> = match objects::get(&nodes, node).await {
        Ok(None) => vec![format!("Node {node} does not exist")],
        Ok(Some(object)) => not_ready(&object).into_iter().collect(),
        Err(_) => Vec::new(),
    };
    let Ok(pods) = agent::pods(client, bobbin_namespace, Some(node)).await else { return problems };
    let Some(pod) = pods.first() else {
        problems.push(format!(
            "namespace {bobbin_namespace} has no agent of node {node}; if the agents are in another namespace, add --bobbin-namespace"
        ));
        return problems;
    };
    match agent::fetch(client, pod).await {
        Ok(status) => problems.extend(of_agent(&status)),
        Err(FetchError::Forbidden(..)) => {}
        Err(error) => problems.push(error.to_string()),
    }
    problems
}

/// Why the Node can start no pods; `None` if it is Ready.
fn not_ready(node: &Node) -> Option<String> {
    let name = node.name_any();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    match conditions.into_iter().flatten().find(|one| one.type_ == READY) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => {
            let message = ready.message.as_deref().unwrap_or("its condition has no message");
            Some(format!("Node {name} is not Ready: {message}"))
        }
        None => Some(format!("Node {name} is not Ready: kubelet has not reported yet")),
    }
}

/// What keeps the agent from serving new pods.
fn of_agent(status: &AgentStatus) -> Vec<String> {
    let problems = status.installation.iter().flat_map(|installation| &installation.problems);
    let mut problems: Vec<String> = problems.map(|problem| problem.what.clone()).collect();
    if status.mode == AgentMode::Remove {
        problems.push(format!(
            "the agent of node {} is in mode remove, so new pods get no address from Bobbin",
            status.node
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let node = |conditions: serde_json::Value| {
            let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": conditions}});
            not_ready(&serde_json::from_value(node).expect("a Node"))
        };
        let ready = |status: &str| json!([{"type": "Ready", "status": status, "message": "Kubelet stopped"}]);
        assert_eq!(node(ready("True")), None);
        assert_eq!(node(ready("Unknown")).as_deref(), Some("Node n1 is not Ready: Kubelet stopped"));
        assert_eq!(node(json!([])).as_deref(), Some("Node n1 is not Ready: kubelet has not reported yet"));
    }

    #[test]
    fn problems_of_the_installation_and_the_mode_remove_keep_pods_waiting() {
        let problem = json!({"reason": "CNIConfigShadowed", "what": "05-a sorts first"});
        let status = json!({"node": "n1", "mode": "remove", "installation": {"problems": [problem]}});
        let problems = of_agent(&serde_json::from_value(status).expect("a document"));
        assert_eq!(problems.len(), 2);
        assert_eq!(problems[0], "05-a sorts first");
        assert!(problems[1].contains("mode remove"), "{}", problems[1]);
        assert!(of_agent(&serde_json::from_value(json!({"node": "n1"})).expect("a document")).is_empty());
    }
}
