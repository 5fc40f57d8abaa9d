//! Applies the chart on a single node. The agent and the operator use the tokens of their service accounts, so the
//! chart's policies apply to them.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::{NODE, SingleNode};
use crate::chart;

/// The namespace of the chart.
pub const CHART_NAMESPACE: &str = "bobbin-system";

impl SingleNode {
    /// Applies the chart, and restarts the operator and the agent with tokens of the chart's service accounts.
    pub async fn use_service_accounts(&mut self) -> Result<()> {
        chart::apply(&self.control_plane, CHART_NAMESPACE).await?;
        let operator = chart::token(&self.client, CHART_NAMESPACE, "bobbin-operator", None).await?;
        let kubeconfig = self.control_plane.kubeconfig_for(&operator)?;
        self.stop_operator();
        self.start_operator_with(&kubeconfig)?;
        let agent = self.agent_token(NODE).await?;
        self.write_kubeconfig(&agent)?;
        self.kill_agent();
        self.start_agent().await
    }

    /// An API client with the token of the agent on another node. The Node need not exist.
    pub async fn agent_client(&self, node: &str) -> Result<Client> {
        self.control_plane.client_for(&self.agent_token(node).await?).await
    }

    /// Creates the agent's pod on a node, and returns the token of that pod.
    async fn agent_token(&self, node: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), CHART_NAMESPACE);
        let pod = json!({
            "metadata": {"name": format!("bobbin-agent-{node}")},
            "spec": {"serviceAccountName": "bobbin-agent", "nodeName": node, "hostNetwork": true, "containers": [{"name": "agent", "image": "none"}]},
        });
        let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        chart::token(&self.client, CHART_NAMESPACE, "bobbin-agent", Some(&pod)).await
    }
}
