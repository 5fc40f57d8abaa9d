//! Tells the invariant checker which nodes have power, and where it finds the network namespaces of their pods.

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

/// Returns what the invariant checker reads on a node: paths and processes. Fails if the node has no power.
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
    /// Waits until all invariants hold in the whole cluster. Fails at once on a finding that is never allowed.
    pub async fn await_invariants(&self, within: Duration) -> Result<()> {
        invariants::await_none(self, within).await
    }
}
