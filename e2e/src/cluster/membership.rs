//! Adds nodes to the cluster and removes nodes.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1;
use kube::api::{Api, DeleteParams};

use super::{Cluster, reference};
use crate::cluster::node::{Node, NodeConfig};
use crate::control_plane::node_token;
use crate::wait::{Poll, check, wait_until};

/// How long nodes may take from boot to Ready, even on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_mins(2);

impl Cluster {
    /// The node with this name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.get(name).with_context(|| format!("the cluster has no node {name}"))
    }

    /// The node with this name, for tests that cut its power or boot it.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.get_mut(name).with_context(|| format!("the cluster has no node {name}"))
    }

    /// All nodes, ordered by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Boots new machines at the same time, and waits until each machine has booted and starts its kubelet. The new
    /// Nodes may not be Ready yet.
    pub async fn add_nodes(&mut self, names: &[String]) -> Result<()> {
        let mut booting = Vec::new();
        for name in names {
            if self.nodes.contains_key(name) {
                bail!("the cluster already has a node {name}");
            }
            let config =
                NodeConfig { kubelet: self.control_plane.kubeconfig_inside(&node_token(name))?, ..self.config.clone() };
            let mut node = Node::new(&self.run, &self.fabric, name, config)?;
            let (network, programs) = (self.options.network, self.config.programs.clone());
            booting.push(tokio::task::spawn_blocking(move || -> Result<Node> {
                if network.has_reference() {
                    reference::install(&node, &programs)?;
                }
                node.boot()?;
                Ok(node)
            }));
        }
        for node in booting {
            let node = node.await.map_err(|_| anyhow!("the thread that boots a node panicked"))??;
            self.nodes.insert(node.name().to_owned(), node);
        }
        if self.options.network.has_reference() {
            reference::route(self)?;
        }
        Ok(())
    }

    /// Removes a machine permanently and deletes its Node object.
    pub async fn remove_node(&mut self, name: &str) -> Result<()> {
        drop(self.nodes.remove(name).with_context(|| format!("the cluster has no node {name}"))?);
        self.delete_node_object(name).await
    }

    /// Deletes a Node object as an administrator does. The machine keeps running.
    pub async fn delete_node_object(&self, name: &str) -> Result<()> {
        Api::<v1::Node>::all(self.client()).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until every node with power is Ready.
    pub async fn await_nodes_ready(&self) -> Result<()> {
        let api: Api<v1::Node> = Api::all(self.client());
        let names: Vec<&String> = self.nodes.iter().filter(|(_, node)| node.is_on()).map(|(name, _)| name).collect();
        let api = &api;
        let names = &names;
        wait_until("all nodes with power are Ready", READY_TIMEOUT, || async move {
            for name in names {
                let Some(node) = api.get_opt(name).await? else {
                    return Ok(Poll::Pending(format!("the Node {name} does not exist")));
                };
                if let Some(why) = not_ready(&node) {
                    return Ok(Poll::Pending(format!("the Node {name} is not Ready: {why}")));
                }
            }
            Ok(check(true, String::new))
        })
        .await
    }
}

/// Returns the reason why a node is not Ready. Returns `None` if the node is Ready or has no status.
pub fn not_ready(node: &v1::Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone().unwrap_or_else(|| ready.status.clone())),
        None => Some("the Node has no condition Ready".to_owned()),
    }
}
