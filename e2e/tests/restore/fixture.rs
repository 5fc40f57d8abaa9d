//! Three nodes with a pool of eight blocks, and functions that restore their etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_crds::{AddressBlock, IPAssignment};
use bobbin_e2e::bare_nodes::{BareNodes, WAIT_TIMEOUT};
use bobbin_e2e::control_plane::Revision;
use bobbin_e2e::single_node::{Answer, Sandbox};
use bobbin_e2e::wait::{check, wait_until};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

/// The factor by which the agents' waits are shortened.
const TIME_SCALE: f64 = 0.3;
/// The number of blocks in the pool. Each block has four addresses.
pub const BLOCKS: usize = 8;
/// The timeout for work that takes an agent a minute without a time scale, and 18 s with [`TIME_SCALE`]. The machine
/// may be busy.
pub const MINUTE: Duration = Duration::from_secs(30);
/// The number of addresses in a block.
pub const BLOCK_LEN: usize = 4;
/// How long the state may take to settle after a restore. The machine may be busy.
pub const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs a test on three new nodes. The nodes must be new, because a node of an earlier test could own blocks in the
/// snapshot.
pub async fn on_new_nodes(test: impl AsyncFnOnce(&mut BareNodes) -> Result<()>) -> Result<()> {
    let scale = format!("--time-scale={TIME_SCALE}");
    let flags = [&*scale, "--block-idle=1s", "--add-timeout=20s", "--stale-check-interval=1s"];
    let mut nodes = BareNodes::start(3, &flags).await?;
    let result = test(&mut nodes).await;
    result.with_context(|| format!("the logs of the nodes:\n{}", nodes.logs()))
}

/// The pods of all nodes. Each entry has the number of the pod's node.
#[derive(Default)]
pub struct Pods(pub Vec<(usize, Sandbox)>);

impl Pods {
    /// Calls ADD for `count` new pods on a node.
    pub fn add(&mut self, nodes: &BareNodes, node: usize, count: usize) -> Result<()> {
        for _ in 0..count {
            self.0.push((node, nodes.node(node).add()?));
        }
        Ok(())
    }

    /// Calls DEL for the first `count` pods of a node, or for all pods if the node has fewer.
    pub fn del(&mut self, nodes: &BareNodes, node: usize, count: usize) -> Result<()> {
        for _ in 0..count {
            let Some(at) = self.0.iter().position(|(on, _)| *on == node) else { break };
            let (_, pod) = self.0.remove(at);
            nodes.node(node).del(&pod)?;
        }
        Ok(())
    }

    /// Maps the container ID of each pod to the addresses that the kernel has in the pod's network namespace.
    pub fn addresses(&self) -> Result<BTreeMap<String, Vec<IpAddr>>> {
        self.0.iter().map(|(_, pod)| Ok((pod.container_id.clone(), pod.addresses()?))).collect()
    }

    /// The addresses that more than one pod has.
    pub fn duplicates(&self) -> Result<BTreeSet<IpAddr>> {
        let mut seen = BTreeSet::new();
        let all = self.addresses()?.into_values().flatten();
        Ok(all.filter(|address| !seen.insert(*address)).collect())
    }

    /// Waits until each address of these pods has its assignment, and until no other assignments exist.
    pub async fn await_assignments(&self, nodes: &BareNodes, timeout: Duration) -> Result<()> {
        self.await_assignments_beside(&BTreeSet::new(), nodes, timeout).await
    }

    /// Does the same as [`Self::await_assignments`], but allows assignments in `also` to exist.
    pub async fn await_assignments_beside(
        &self,
        also: &BTreeSet<Assignment>,
        nodes: &BareNodes,
        timeout: Duration,
    ) -> Result<()> {
        let wanted: BTreeSet<Assignment> = self
            .addresses()?
            .into_iter()
            .flat_map(|(id, addresses)| addresses.into_iter().map(move |address| (address.to_string(), id.clone())))
            .collect();
        wait_until("the assignments are those of the running pods", timeout, || async {
            let seen = assignments(nodes).await?;
            let missing = wanted.difference(&seen).count();
            let extra = seen.difference(&wanted).filter(|one| !also.contains(*one)).count();
            Ok(check(missing + extra == 0, || {
                format!("{} addresses are in use; {missing} of them have no assignment, and {extra} other assignments exist", wanted.len())
            }))
        })
        .await
    }

    /// Calls DEL for all pods, and waits until no assignment is left.
    pub async fn end(mut self, nodes: &BareNodes) -> Result<()> {
        for (node, pod) in self.0.drain(..) {
            nodes.node(node).del(&pod)?;
        }
        Pods::default().await_assignments(nodes, SETTLE_TIMEOUT).await
    }
}

/// The name and the container ID of an assignment.
pub type Assignment = (String, String);

/// All assignments in the API.
pub async fn assignments(nodes: &BareNodes) -> Result<BTreeSet<Assignment>> {
    let all = nodes.assignments().await?.into_iter();
    Ok(all.map(|one| (one.metadata.name.unwrap_or_default(), one.spec.container_id)).collect())
}

/// Deletes the restored assignments whose containers have ended, as an administrator does. These assignments name no
/// pod, so no agent can find out that their containers have ended.
pub async fn delete_left_over(nodes: &BareNodes, pods: &Pods) -> Result<usize> {
    let api: Api<IPAssignment> = Api::all(nodes.client.clone());
    let running: BTreeSet<&str> = pods.0.iter().map(|(_, pod)| pod.container_id.as_str()).collect();
    let mut deleted = 0;
    for (name, _) in assignments(nodes).await?.into_iter().filter(|(_, id)| !running.contains(id.as_str())) {
        api.delete(&name, &DeleteParams::default()).await?;
        deleted += 1;
    }
    Ok(deleted)
}

/// Creates the pool `default`, without a cool-down.
pub async fn make_pool(nodes: &BareNodes) -> Result<()> {
    let spec = json!({"subnets": [{"ipv4": "10.90.0.0/27"}], "blockSizeBits": 2, "cooldownSeconds": 0});
    nodes.apply_pool("default", &spec, BLOCKS).await
}

/// The blocks that a node owns.
pub async fn owned(nodes: &BareNodes, node: usize) -> Result<Vec<AddressBlock>> {
    let name = &nodes.node(node).name;
    let all = nodes.blocks("default").await?;
    Ok(all.into_iter().filter(|block| block.spec.node_name.as_ref() == Some(name)).collect())
}

/// Waits until a node owns this many blocks.
pub async fn await_owned(nodes: &BareNodes, node: usize, count: usize) -> Result<()> {
    wait_until(&format!("node n{node} owns {count} blocks"), WAIT_TIMEOUT, || async {
        let seen = owned(nodes, node).await?.len();
        Ok(check(seen == count, || format!("the node owns {seen} blocks")))
    })
    .await
}

/// Waits until the outage is so long that the agents expect a restore.
pub async fn await_outage(since: Instant) -> Result<()> {
    let outage = Duration::from_secs(11).mul_f64(TIME_SCALE);
    wait_until("the outage is so long that the agents expect a restore", outage + WAIT_TIMEOUT, || async {
        Ok(check(since.elapsed() > outage, || format!("{:?}", since.elapsed())))
    })
    .await
}

/// Restores etcd and starts the control plane. The caller must have stopped the control plane.
pub async fn restore(nodes: &mut BareNodes, snapshot: &Path, revision: Revision) -> Result<()> {
    nodes
        .control_plane
        .start_restored(snapshot, revision)
        .await
        .context("the control plane did not start after the restore")
}

/// An ADD that is running while the test continues.
pub struct RunningAdd {
    node: usize,
    pod: Sandbox,
    thread: std::thread::JoinHandle<Result<Answer>>,
}

impl RunningAdd {
    pub fn begin(nodes: &BareNodes, node: usize) -> Result<Self> {
        let (plugin, pod) = (nodes.node(node).plugin(), nodes.node(node).sandbox()?);
        let call = pod.call("ADD");
        Ok(Self { node, pod, thread: std::thread::spawn(move || plugin.call(&call)) })
    }

    /// Waits for the ADD without blocking other tasks of the test. If the ADD failed, calls DEL like a runtime.
    pub async fn end(self, nodes: &BareNodes, pods: &mut Pods) -> Result<bool> {
        let Self { node, pod, thread } = self;
        let answer = tokio::task::spawn_blocking(move || thread.join()).await?;
        let answer = answer.map_err(|_| anyhow!("the thread of an ADD panicked"))??;
        if answer.exit == 0 {
            pods.0.push((node, pod));
            return Ok(true);
        }
        let error = answer.error()?;
        ensure!(error.code > 0 && !error.text.is_empty(), "{error:?}");
        nodes.node(node).del(&pod)?;
        Ok(false)
    }
}
