//! Reads blocks and assignments, and waits until a pool's blocks reach a state.

use std::time::Duration;

use anyhow::Result;
use bobbin_crds::{AddressBlock, IPAssignment};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::cluster::Cluster;
use crate::wait::{check, wait_until};

impl Cluster {
    /// All assignments at the API server.
    pub async fn assignments(&self) -> Result<Vec<IPAssignment>> {
        Ok(Api::<IPAssignment>::all(self.client()).list(&ListParams::default()).await?.items)
    }

    /// The assignments of the pods of a namespace.
    pub async fn assignments_of(&self, namespace: &str) -> Result<Vec<IPAssignment>> {
        let selector = ListParams::default().fields(&format!("spec.podNamespace={namespace}"));
        Ok(Api::<IPAssignment>::all(self.client()).list(&selector).await?.items)
    }

    /// The blocks of a pool.
    pub async fn blocks_of_pool(&self, pool: &str) -> Result<Vec<AddressBlock>> {
        let selector = ListParams::default().fields(&format!("spec.poolName={pool}"));
        Ok(Api::<AddressBlock>::all(self.client()).list(&selector).await?.items)
    }

    /// The blocks that a node has claimed.
    pub async fn blocks_of_node(&self, node: &str) -> Result<Vec<AddressBlock>> {
        let selector = ListParams::default().fields(&format!("spec.nodeName={node}"));
        Ok(Api::<AddressBlock>::all(self.client()).list(&selector).await?.items)
    }

    /// Waits until `passes` accepts the list of a pool's claimed blocks.
    pub async fn await_blocks(
        &self,
        pool: &str,
        what: &str,
        within: Duration,
        passes: impl Fn(&[AddressBlock]) -> bool,
    ) -> Result<()> {
        let passes = &passes;
        wait_until(&format!("pool {pool}: {what}"), within, || async move {
            let blocks = self.blocks_of_pool(pool).await?;
            let claimed: Vec<AddressBlock> =
                blocks.into_iter().filter(|block| block.spec.node_name.is_some()).collect();
            Ok(check(passes(&claimed), || {
                let seen = claimed.iter().map(|block| (block.name_any(), block.spec.node_name.clone()));
                format!("the claimed blocks and their nodes are {:?}", seen.collect::<Vec<_>>())
            }))
        })
        .await
    }
}
