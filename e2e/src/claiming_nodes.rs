//! Simulates many nodes. They run the agent's code, and claim blocks from one real API server. The fixture carves the
//! blocks. In a [`ClaimingCluster`], the operator carves the blocks instead. The simulated nodes do not use the kernel.

mod cluster;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bobbin_api_client::Clients;
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, name};
use bobbin_ipam::BlockRange;
use bobbin_node_agent::{ClaimError, ClaimedBlock, ExportError, Exports, SimulatedNode};
use futures::future::{BoxFuture, join_all};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::control_plane::{ADMIN, AuditLog, ControlPlane, ControlPlaneOptions, Mark, install_crds};
use crate::suite::Fixture;
use crate::wait::{Poll, wait_until};
pub use cluster::ClaimingCluster;

/// The simulated nodes multiply all waits of the protocol by this factor, so that a test does not take minutes.
const SCALE: f64 = 0.01;
/// The number of blocks that the fixture creates concurrently, and the number of nodes that it starts concurrently.
const CONCURRENCY: usize = 16;
/// How long the audit log may lag behind the API server's answers.
const AUDIT_LOG_TIMEOUT: Duration = Duration::from_secs(20);

/// A control plane with Bobbin's custom resource definitions, but without an operator.
pub struct ClaimFixture {
    /// A client with the administrator's permissions.
    pub client: kube::Client,
    /// The audit log of the API server. The user agent in a node's requests is the name of the node.
    pub audit: AuditLog,
    kubeconfig: PathBuf,
    scratch: tempfile::TempDir,
    _control_plane: ControlPlane,
}

/// A simulated node that only claims and releases blocks.
pub struct ClaimingNode {
    /// The node's name.
    pub name: String,
    /// The agent's claim code with the node's state.
    pub claiming: SimulatedNode,
    /// The node's connections to the API server.
    pub clients: Clients,
}

/// The result of one node's claim.
pub struct ClaimResult<'a> {
    /// The node that made the claim.
    pub node: &'a ClaimingNode,
    /// The claimed block, or the error.
    pub outcome: Result<ClaimedBlock, ClaimError>,
}

/// Exports nothing to the kernel. Other tests check the exported routes.
struct NoExports;

impl Exports for NoExports {
    fn export(&self, _: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        Box::pin(async { Ok(()) })
    }

    fn withdraw(&self, _: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Fixture for ClaimFixture {}

impl ClaimFixture {
    /// Starts the control plane. If `fsync` is true, etcd syncs each write to the disk, as in production.
    pub async fn start(fsync: bool) -> Result<Self> {
        let control_plane =
            ControlPlane::start(ControlPlaneOptions { fsync, audit: true, ..ControlPlaneOptions::default() }).await?;
        let client = control_plane.client().await?;
        install_crds(&client).await?;
        let kubeconfig = control_plane.kubeconfig_for(ADMIN)?;
        let audit = control_plane.audit();
        Ok(Self { client, audit, kubeconfig, scratch: tempfile::tempdir()?, _control_plane: control_plane })
    }

    /// A kubeconfig with the administrator's permissions.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API of AddressPool objects.
    pub fn pools(&self) -> Api<AddressPool> {
        Api::all(self.client.clone())
    }

    /// The API of AddressBlock objects.
    pub fn blocks(&self) -> Api<AddressBlock> {
        Api::all(self.client.clone())
    }

    /// Creates free blocks in a pool, as the operator does.
    pub async fn carve(&self, pool: &str, second_octet: u8, indices: impl IntoIterator<Item = i64>) -> Result<()> {
        let blocks = self.blocks();
        let made = indices.into_iter().map(|index| {
            let blocks = blocks.clone();
            let (second, third, fourth) = (i64::from(second_octet) + index / 2048, index / 8 % 256, index % 8 * 32);
            let spec = AddressBlockSpec {
                pool_name: pool.to_owned(),
                index,
                ipv4: Some(format!("10.{second}.{third}.{fourth}/27")),
                ..AddressBlockSpec::default()
            };
            let block = AddressBlock::new(&name::block(pool, index), spec);
            async move { blocks.create(&PostParams::default(), &block).await.map(drop) }
        });
        stream::iter(made).buffer_unordered(CONCURRENCY).try_collect().await.map_err(Into::into)
    }

    /// Creates a simulated node. The node's saved view of the cluster contains its Node object and `pool`. From the
    /// status of `pool`, the node learns in which window of block numbers the free blocks are.
    pub async fn node(&self, node: &str, pool: &AddressPool) -> Result<ClaimingNode> {
        let directory =
            self.scratch.path().join(format!("{node}-{}", pool.metadata.name.as_deref().unwrap_or_default()));
        std::fs::create_dir_all(&directory)?;
        let node_info =
            json!({"name": node, "uid": format!("uid-{node}"), "ipv4": "192.0.2.1", "ipv6": null, "labels": {}});
        let kept = json!({"node": node_info, "pods": [], "pools": [pool], "namespaces": []});
        std::fs::write(directory.join("cluster.json"), serde_json::to_vec(&kept)?)?;
        let clients = bobbin_api_client::connect(Some(&self.kubeconfig), node).await?;
        // Open the connection to the API server before the node claims, as in a running agent. The measured claim then
        // does not include the opening of the connection.
        clients.requests.apiserver_version().await?;
        let claiming = SimulatedNode::start(&clients, node, &directory, Arc::new(NoExports), SCALE)?;
        Ok(ClaimingNode { name: node.to_owned(), claiming, clients })
    }

    /// Creates nodes named `prefix-0`, `prefix-1` and so on.
    pub async fn nodes(&self, prefix: &str, count: usize, pool: &AddressPool) -> Result<Vec<ClaimingNode>> {
        let made = (0..count).map(|number| async move { self.node(&format!("{prefix}-{number}"), pool).await });
        stream::iter(made).buffer_unordered(CONCURRENCY).try_collect().await
    }

    /// Checks that every claim succeeded, and that each node got a different block. Also checks that the nodes' states
    /// and the API server show the same owners as the claims.
    pub async fn check_no_duplicate_block(&self, pool: &str, claims: &[ClaimResult<'_>]) -> Result<()> {
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for ClaimResult { node, outcome } in claims {
            let block =
                outcome.as_ref().map_err(|error| anyhow::anyhow!("the claim of node {} failed: {error}", node.name))?;
            if let Some(other) = taken.insert(block.name.clone(), &node.name) {
                anyhow::bail!("block {} went to node {other} and to node {}", block.name, node.name);
            }
            let held: Vec<String> =
                node.claiming.node_state.blocks().into_iter().map(|block| block.held.name).collect();
            ensure!(
                held == [block.name.clone()],
                "the state of node {} must hold exactly the claimed block, but holds {held:?}",
                node.name
            );
        }
        for block in self.blocks().list(&ListParams::default().fields(&format!("spec.poolName={pool}"))).await? {
            let name = block.metadata.name.context("the API server returned a block without a name")?;
            let (says, owner) = (block.spec.node_name.as_deref(), taken.get(&name).copied());
            ensure!(
                says == owner,
                "at the API server, block {name} has the owner {says:?}, but the claims say {owner:?}"
            );
        }
        Ok(())
    }

    /// Waits until the audit log has this many successful claims by the nodes `prefix-…` after the mark. Returns how many
    /// API calls about blocks each of these nodes made: one number per node, in ascending order.
    pub async fn calls_of_claims(&self, mark: Mark, prefix: &str, claims: usize) -> Result<Vec<usize>> {
        let prefix = format!("{prefix}-");
        wait_until("each claim's calls are in the audit log", AUDIT_LOG_TIMEOUT, || async {
            let entries = self
                .audit
                .calls(mark, |entry| entry.user_agent.starts_with(&prefix) && entry.resource() == "addressblocks")?;
            let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
            for entry in &entries {
                *calls.entry(&entry.user_agent).or_default() += 1;
            }
            let won = entries.iter().filter(|entry| entry.is_write() && entry.code() == 200).count();
            if won < claims {
                return Ok(Poll::Pending(format!("the log has {won} of {claims} claims")));
            }
            let mut counts: Vec<usize> = calls.into_values().collect();
            counts.sort_unstable();
            Ok(Poll::Ready(counts))
        })
        .await
    }
}

/// Each node claims one block of the pool, and all nodes claim at the same time. Returns the results, and the time
/// until the last claim ended.
pub async fn claim_at_once<'a>(nodes: &'a [ClaimingNode], pool: &str) -> (Vec<ClaimResult<'a>>, Duration) {
    let start = Instant::now();
    let claims = nodes
        .iter()
        .map(|node| async move { ClaimResult { node, outcome: node.claiming.claims.claim(pool, false).await } });
    (join_all(claims).await, start.elapsed())
}

/// A pool that is ready. `window` holds the first and the last number of the free blocks that its status reports. The
/// pool's subnet contains the blocks that [`ClaimFixture::carve`] creates with the same second octet.
pub fn pool(name: &str, second_octet: u8, window: Option<(i64, i64)>) -> Result<AddressPool> {
    let status = json!({
        "blocks": {"total": 2048, "claimed": 0, "free": 2048},
        "freeWindow": window.map(|(first, last)| json!({"first": first, "last": last, "free": last - first + 1})),
        "conditions": [{"type": "Ready", "status": "True", "reason": "SubnetsAccepted", "message": "", "lastTransitionTime": "2026-11-21T00:00:00Z"}]
    });
    Ok(serde_json::from_value(json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name},
        "spec": {"subnets": [{"ipv4": format!("10.{}.0.0/13", second_octet & !7)}]}, "status": status
    }))?)
}

/// The number of free blocks that the operator carves in advance if this many nodes use the pool `default`.
pub fn carved_for(nodes: usize) -> Result<i64> {
    Ok(i64::try_from(nodes)? * 6)
}
