//! Gives the invariant checker access to the single node.

use super::{NODE, SingleNode};
use crate::invariants::{MachineSource, Watched};

impl Watched for SingleNode {
    fn client(&self) -> kube::Client {
        self.client.clone()
    }

    fn machines(&self, _: &[(String, String)]) -> Vec<MachineSource> {
        vec![MachineSource {
            name: NODE.to_owned(),
            namespace: self.namespace.clone(),
            run_dir: self.run_dir(),
            netns_dir: self.path("netns"),
            // The checker finds every sandbox by its mount, because no process runs in a sandbox.
            processes: Vec::new(),
        }]
    }
}
