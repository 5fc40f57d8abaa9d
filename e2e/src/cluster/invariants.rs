//! The cluster as the invariant checker sees it: its nodes with power, and where their pods' namespaces are.

use std::time::Duration;

use anyhow::Result;

use super::Cluster;
use super::node::Node;
use crate::invariants::{self, MachineSource, Watched};

/// The agent's run directory on a node.
const RUN_DIR: &str = "/run/bobbin";
/// The directory in which containerd mounts the pods' network namespaces.
const NETNS_DIR: &str = "/run/netns";

impl Watched for Cluster {
    fn client(&self) -> kube::Client {
        Cluster::client(self)
    }

    fn machines(&self, pods: &[(String, String)]) -> Vec<MachineSource> {
        self.nodes().filter_map(|node| source(node, pods).ok()).collect()
    }
}

/// Fails if the node has no power.
fn source(node: &Node, pods: &[(String, String)]) -> Result<MachineSource> {
    let own = pods.iter().filter(|(name, _)| name == node.name());
    Ok(MachineSource {
        name: node.name().to_owned(),
        namespace: node.namespace()?.clone(),
        run_dir: node.path(RUN_DIR)?,
        netns_dir: node.path(NETNS_DIR)?,
        processes: own.map(|(_, uid)| (uid.clone(), node.processes_of_pod(uid))).collect(),
    })
}

impl Cluster {
    /// Waits until no invariant is broken anywhere in the cluster. Fails at once if a finding is never allowed.
    pub async fn await_invariants(&self, within: Duration) -> Result<()> {
        invariants::await_none(self, within).await
    }
}
