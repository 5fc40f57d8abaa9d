//! The single node as the invariant checker sees it.

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
            // No process runs in a sandbox, and every sandbox is mounted.
            processes: Vec::new(),
        }]
    }
}
