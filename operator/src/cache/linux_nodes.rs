//! Counts the Nodes on which the agent can run. An alert compares this number with the number of running agents.

use std::sync::Arc;

use bobbin_api_client::PartialNode;

use super::Index;

/// The label that says which operating system a Node runs. The chart's DaemonSet selects the value `linux`.
const OS_LABEL: &str = "kubernetes.io/os";

impl Index {
    /// The number of Nodes that run Linux.
    pub(crate) fn linux_nodes(&self) -> usize {
        linux_nodes(&self.nodes.state())
    }
}

/// The number of Nodes that run Linux. A new Node without the label counts, too, because its kubelet sets the label
/// soon after the Node is created.
fn linux_nodes(nodes: &[Arc<PartialNode>]) -> usize {
    let os = |node: &PartialNode| node.metadata.labels.as_ref()?.get(OS_LABEL).cloned();
    nodes.iter().filter(|node| os(node).is_none_or(|os| os == "linux")).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: &serde_json::Value) -> Arc<PartialNode> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}})).unwrap())
    }

    #[test]
    fn nodes_of_other_operating_systems_do_not_count() {
        let nodes = [
            node(&json!({OS_LABEL: "linux"})),
            node(&json!({OS_LABEL: "windows"})),
            node(&json!({"other": "label"})),
            node(&json!(null)),
        ];
        assert_eq!(linux_nodes(&nodes), 3);
    }
}
