//! Many nodes that claim blocks of one real API server by the agent's own code: the blocks are carved by hand, nobody else is at work,
//! and no kernel is touched. The tests of the claim protocol and the bench stand on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
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

use crate::control_plane::{ADMIN, AuditLog, ControlPlane, Mark, Options, install_kinds};
use crate::until::{Look, until};

/// The agent's protocol waits are multiplied by this, so that a test does not last minutes.
const SCALE: f64 = 0.01;
/// How many blocks are carved, and how many nodes connect, at the same time.
const SIDE_BY_SIDE: usize = 16;
/// How long the audit log may lag behind the answers.
const AUDIT: Duration = Duration::from_secs(20);

/// A control plane with the kinds installed and nobody at work. Cheap to clone.
#[derive(Clone)]
pub struct ClaimWorld {
    /// The administrator's client.
    pub client: kube::Client,
    /// The API server's log of calls; a node's calls carry its name as the user agent.
    pub audit: AuditLog,
    kubeconfig: PathBuf,
    scratch: Arc<tempfile::TempDir>,
}

/// One node's claiming part.
pub struct Claimer {
    /// The node's name.
    pub name: String,
    /// Claims and ledger.
    pub claiming: SimulatedNode,
    /// The node's own connections.
    pub clients: Clients,
}

/// What became of one claim.
pub struct Claimed<'a> {
    /// The node that claimed.
    pub node: &'a Claimer,
    /// Its block.
    pub outcome: Result<ClaimedBlock, ClaimError>,
}

/// No kernel: the routes are another test's.
struct Nowhere;

impl Exports for Nowhere {
    fn export(&self, _: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        Box::pin(async { Ok(()) })
    }

    fn withdraw(&self, _: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        Box::pin(async { Ok(()) })
    }
}

impl ClaimWorld {
    /// Starts the control plane. `fsync`: etcd waits for the disk, as in earnest.
    pub async fn start(fsync: bool) -> Result<(ControlPlane, Self)> {
        let control_plane = ControlPlane::start(Options { fsync, audit: true, ..Options::default() }).await?;
        let client = control_plane.client().await?;
        install_kinds(&client).await?;
        let kubeconfig = control_plane.kubeconfig_for(ADMIN)?;
        let audit = control_plane.audit();
        Ok((control_plane, Self { client, audit, kubeconfig, scratch: Arc::new(tempfile::tempdir()?) }))
    }

    /// All blocks.
    pub fn blocks(&self) -> Api<AddressBlock> {
        Api::all(self.client.clone())
    }

    /// Carves free blocks of a pool, as the operator would.
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
        stream::iter(made).buffer_unordered(SIDE_BY_SIDE).try_collect().await.map_err(Into::into)
    }

    /// A node whose agent knows what an earlier run of it kept: its Node, and the pool with this window of free blocks.
    pub async fn node(&self, node: &str, pool: &AddressPool) -> Result<Claimer> {
        let directory =
            self.scratch.path().join(format!("{node}-{}", pool.metadata.name.as_deref().unwrap_or_default()));
        std::fs::create_dir_all(&directory)?;
        let facts =
            json!({"name": node, "uid": format!("uid-{node}"), "ipv4": "192.0.2.1", "ipv6": null, "labels": {}});
        let kept = json!({"node": facts, "pods": [], "pools": [pool], "namespaces": []});
        std::fs::write(directory.join("cluster.json"), serde_json::to_vec(&kept)?)?;
        let clients = bobbin_api_client::connect(Some(&self.kubeconfig), node).await?;
        // An agent that runs has its connection: that is not a claim's to make.
        clients.requests.apiserver_version().await?;
        let claiming = SimulatedNode::start(&clients, node, &directory, Arc::new(Nowhere), SCALE)?;
        Ok(Claimer { name: node.to_owned(), claiming, clients })
    }

    /// Many nodes, `prefix-0` and so on.
    pub async fn nodes(&self, prefix: &str, count: usize, pool: &AddressPool) -> Result<Vec<Claimer>> {
        let made = (0..count).map(|number| async move { self.node(&format!("{prefix}-{number}"), pool).await });
        stream::iter(made).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    /// Fails if a claim did, if a block went to two nodes, or if a ledger or the API server says otherwise than the claims.
    pub async fn no_block_twice(&self, pool: &str, claims: &[Claimed<'_>]) -> Result<()> {
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for Claimed { node, outcome } in claims {
            let block = outcome.as_ref().map_err(|error| anyhow::anyhow!("{}: {error}", node.name))?;
            if let Some(other) = taken.insert(block.name.clone(), &node.name) {
                anyhow::bail!("{} is of {other} and of {}", block.name, node.name);
            }
            let held: Vec<String> =
                node.claiming.node_state.blocks().into_iter().map(|block| block.held.name).collect();
            ensure!(held == [block.name.clone()], "the ledger of {} has {held:?}", node.name);
        }
        for block in self.blocks().list(&ListParams::default().fields(&format!("spec.poolName={pool}"))).await? {
            let name = block.metadata.name.context("a block has no name")?;
            let (says, owner) = (block.spec.node_name.as_deref(), taken.get(&name).copied());
            ensure!(says == owner, "{name} is of {says:?}, not of {owner:?}");
        }
        Ok(())
    }

    /// How many calls about blocks each node of a prefix made since a mark, in rising order, once so many claims are in the audit log.
    pub async fn calls_of_claims(&self, mark: Mark, prefix: &str, claims: usize) -> Result<Vec<usize>> {
        let prefix = format!("{prefix}-");
        until("each claim's calls are in the audit log", AUDIT, || async {
            let entries = self
                .audit
                .calls(mark, |entry| entry.user_agent.starts_with(&prefix) && entry.resource() == "addressblocks")?;
            let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
            for entry in &entries {
                *calls.entry(&entry.user_agent).or_default() += 1;
            }
            let won = entries.iter().filter(|entry| entry.is_write() && entry.code() == 200).count();
            if won < claims {
                return Ok(Look::NotYet(format!("{won} of {claims} claims")));
            }
            let mut counts: Vec<usize> = calls.into_values().collect();
            counts.sort_unstable();
            Ok(Look::Yes(counts))
        })
        .await
    }
}

/// Every node claims one block of the pool, all at once; the time until the last had its block or its refusal.
pub async fn claim_at_once<'a>(nodes: &'a [Claimer], pool: &str) -> (Vec<Claimed<'a>>, Duration) {
    let start = Instant::now();
    let claims = nodes
        .iter()
        .map(|node| async move { Claimed { node, outcome: node.claiming.claims.claim(pool, false).await } });
    (join_all(claims).await, start.elapsed())
}

/// A pool that is ready and says that its free blocks lie in the window.
pub fn pool(name: &str, second_octet: u8, window: Option<(i64, i64)>) -> Result<AddressPool> {
    let status = json!({
        "blocks": {"total": 2048, "claimed": 0, "free": 2048},
        "freeWindow": window.map(|(first, last)| json!({"first": first, "last": last, "free": last - first + 1})),
        "conditions": [{"type": "Ready", "status": "True", "reason": "Carved", "message": "", "lastTransitionTime": "2026-11-21T00:00:00Z"}]
    });
    Ok(serde_json::from_value(json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name},
        "spec": {"subnets": [{"ipv4": format!("10.{second_octet}.0.0/16")}]}, "status": status
    }))?)
}

/// The blocks that the operator keeps ahead of so many nodes in the pool `default`.
pub fn carved_for(nodes: usize) -> Result<i64> {
    Ok(i64::try_from(nodes)? * 6)
}
