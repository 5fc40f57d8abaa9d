//! The cluster as the fixture of a test suite. After each test, the suite checks the invariants and removes the objects
//! that the test created.

use std::time::Duration;

use anyhow::{Context, Result};
use bobbin_crds::AddressPool;
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};

use super::Cluster;
use crate::suite::Fixture;

/// Namespaces that exist before the tests, so the clean-up keeps them.
const ESTABLISHED: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "bobbin-system"];

/// How long the cluster may take until all invariants hold. This time covers the grace period of a deleted node, retries
/// and resyncs.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);

impl Fixture for Cluster {
    async fn after_test(&mut self) -> Result<()> {
        restore(self).await?;
        self.await_invariants(SETTLE_TIMEOUT)
            .await
            .context("the invariants did not hold while the pods of the test existed")?;
        clean_up(self).await?;
        self.await_invariants(SETTLE_TIMEOUT)
            .await
            .context("the invariants did not hold after the pods and pools of the test were deleted")
    }

    fn describe(&self) -> String {
        self.describe_state()
    }
}

/// Treats "not found" as success, because an object that a test has deleted may disappear between the clean-up's list
/// and its delete.
fn gone_is_fine<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Starts the API server if it is stopped. Boots each node that has no power, plugs in the network cables of the other
/// nodes, and waits until all nodes are Ready.
async fn restore(cluster: &mut Cluster) -> Result<()> {
    cluster.control_plane_mut().start_apiserver().await?;
    cluster.controllers_must_be_running()?;
    let names: Vec<String> = cluster.nodes().map(|node| node.name().to_owned()).collect();
    for name in names {
        let node = cluster.node_mut(&name)?;
        if node.is_on() {
            node.plug()?;
        } else {
            node.boot()?;
        }
    }
    cluster.await_nodes_ready().await
}

/// Removes the pods, namespaces and pools that tests created.
async fn clean_up(cluster: &Cluster) -> Result<()> {
    let namespaces: Api<v1::Namespace> = Api::all(cluster.client());
    for namespace in namespaces.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any) {
        if !ESTABLISHED.contains(&namespace.as_str()) {
            cluster.delete_all_pods(&namespace).await?;
            gone_is_fine(namespaces.delete(&namespace, &DeleteParams::default()).await)?;
        }
    }
    let pools: Api<AddressPool> = Api::all(cluster.client());
    for pool in pools.list(&ListParams::default()).await?.items.iter().filter(|pool| pool.name_any() != "default") {
        cluster.drain_pool(&pool.name_any()).await?;
        gone_is_fine(pools.delete(&pool.name_any(), &DeleteParams::default()).await)?;
        cluster.await_gone(pool, Duration::from_mins(1)).await?;
    }
    Ok(())
}
