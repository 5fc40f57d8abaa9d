//! A control plane with an operator, Node objects, and simulated nodes that see the operator's changes of pools.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bobbin_api_client::Lenient;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use xtask::artifacts::Artifacts;

use super::{CONCURRENCY, ClaimFixture, ClaimingNode};
use crate::control_plane::Process;

/// A control plane with an operator that leads without an election.
pub struct ClaimingCluster {
    /// The control plane.
    pub fixture: ClaimFixture,
    _operator: Process,
}

impl ClaimingCluster {
    /// Starts the control plane and the operator. If `fsync` is true, etcd syncs each write to the disk, as in
    /// production.
    pub async fn start(fsync: bool) -> Result<Self> {
        let fixture = ClaimFixture::start(fsync).await?;
        let flags = [
            "operator".to_owned(),
            format!("--kubeconfig={}", fixture.kubeconfig().display()),
            "--no-leader-election".to_owned(),
        ];
        let log = fixture.scratch.path().join("operator.log");
        let operator = Process::start(Artifacts::find()?.all(), None, &log, flags)?;
        Ok(Self { fixture, _operator: operator })
    }

    /// Creates Node objects named `prefix-0`, `prefix-1` and so on.
    pub async fn create_nodes(&self, prefix: &str, count: usize, labels: &Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.fixture.client.clone());
        let made = (0..count).map(|number| {
            let (nodes, name) = (nodes.clone(), format!("{prefix}-{number}"));
            async move {
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
                nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
                anyhow::Ok(())
            }
        });
        stream::iter(made).buffer_unordered(CONCURRENCY).try_collect().await
    }

    /// Creates a pool.
    pub async fn create_pool(&self, name: &str, spec: Value) -> Result<()> {
        let pool = json!({
            "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name}, "spec": spec,
        });
        let pools = self.fixture.pools();
        pools.create(&PostParams::default(), &serde_json::from_value(pool)?).await.context(name.to_owned())?;
        Ok(())
    }

    /// Passes each change of the pools to the nodes, as the watch of a real agent does. Stops when the returned value
    /// is dropped.
    pub fn watch_pools(&self, nodes: &[ClaimingNode]) -> JoinSet<()> {
        let clusters: Vec<_> = nodes.iter().map(|node| node.claiming.cluster.clone()).collect();
        let pools = watcher(self.fixture.pools(), watcher::Config::default());
        let mut pools = pools.default_backoff().applied_objects().boxed();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut known = BTreeMap::new();
            while let Some(pool) = pools.next().await {
                let Ok(pool) = pool else { continue };
                known.insert(pool.name_any(), pool);
                let known: Vec<_> = known.values().cloned().map(Lenient::Readable).collect();
                for cluster in &clusters {
                    cluster.update_pools(known.clone());
                }
            }
        });
        task
    }
}
