//! A pool with pods of this node, and the changes that node `n9` or an administrator makes to the pool's blocks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, IPAssignmentSpec};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::single_node::{Answer, NODE, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, check, wait_until};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// The name of the other node.
pub const OTHER: &str = "n9";
/// The container ID in the other node's assignments.
pub const ELSEWHERE: &str = "elsewhere";
/// The API verbs that write blocks.
pub const WRITES: &[&str] = &["patch", "update"];
/// The API verbs that read objects.
pub const READS: &[&str] = &["get", "list"];

/// Maps the third byte of a test's addresses in 10.90.0.0/16 to the pool that uses this byte. No two tests may use the
/// same third byte, because their pools would overlap.
static SUBNETS: Mutex<BTreeMap<u8, &str>> = Mutex::new(BTreeMap::new());

/// A pool and the pods that this node runs in it.
pub struct PoolFixture {
    pub pool: &'static str,
    pub pods: Vec<Sandbox>,
    spec: Value,
}

impl PoolFixture {
    /// Creates the pool `10.90.THIRD.0/PREFIX` with blocks of 2^bits addresses and no cool-down. The fields in `more`
    /// are added to the spec or replace its fields.
    pub async fn create(
        node: &SingleNode,
        pool: &'static str,
        third: u8,
        prefix: u8,
        bits: u8,
        more: Value,
    ) -> Result<Self> {
        let other = SUBNETS.lock().unwrap_or_else(PoisonError::into_inner).insert(third, pool);
        ensure!(
            other.is_none_or(|other| other == pool),
            "the pools {other:?} and {pool:?} use the same subnet 10.90.{third}.0"
        );
        let mut spec = json!({
            "subnets": [{"ipv4": format!("10.90.{third}.0/{prefix}")}], "blockSizeBits": bits, "cooldownSeconds": 0,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        node.apply_pool(pool, spec.clone()).await?;
        node.await_free_blocks(pool).await?;
        Ok(Self { pool, pods: Vec::new(), spec })
    }

    /// Creates a pod of the pool, but does not call ADD. Returns the pod's index in `pods`.
    pub async fn pod(&mut self, node: &SingleNode) -> Result<usize> {
        let pod = node.kube_pod("default", &format!("{}-{}", self.pool, self.pods.len()), Some(self.pool)).await?;
        self.pods.push(pod);
        Ok(self.pods.len() - 1)
    }

    /// Creates a pod, calls ADD for it, and waits for its assignment.
    pub async fn add(&mut self, node: &SingleNode) -> Result<usize> {
        let number = self.pod(node).await?;
        // Repeat the ADD like a runtime, because the agent may not know yet that the operator has accepted the pool.
        wait_until("the agent knows that the pool is ready", WAIT_TIMEOUT, || async {
            let answer = node.call(&self.pods[number].call("ADD"))?;
            let is_ready = !answer.error().is_ok_and(|error| error.text.contains("which is not ready"));
            if is_ready {
                answer.ok().with_context(|| {
                    format!("the ADD failed; the end of the agent's log:\n{}", node.agent_log_tail())
                })?;
            }
            Ok(check(is_ready, || "the agent does not know that yet".to_owned()))
        })
        .await?;
        let id = self.pods[number].container_id.clone();
        wait_until("the pod has its assignment", WAIT_TIMEOUT, || async {
            let all = node.assignments().await?;
            Ok(check(all.iter().any(|one| one.spec.container_id == id), || format!("{} assignments", all.len())))
        })
        .await?;
        Ok(number)
    }

    /// Starts an ADD in a thread. The thread returns the answer of the ADD.
    pub fn begin_add(&self, node: &SingleNode, number: usize) -> std::thread::JoinHandle<Result<Answer>> {
        let (plugin, call) = (node.plugin(), self.pods[number].call("ADD"));
        std::thread::spawn(move || plugin.call(&call))
    }

    /// The address of a pod, as the kernel shows it.
    pub fn address(&self, number: usize) -> Result<IpAddr> {
        self.pods[number].addresses()?.first().copied().with_context(|| format!("pod {number} has no address"))
    }

    /// The block that contains a pod's address.
    pub async fn block(&self, node: &SingleNode, number: usize) -> Result<Block> {
        Block::with(node, self.address(number)?).await
    }

    /// Sets `draining` in the pool's spec to this value.
    pub async fn drain(&mut self, node: &SingleNode, draining: bool) -> Result<()> {
        self.spec["draining"] = json!(draining);
        node.apply_pool_only(self.pool, self.spec.clone()).await
    }

    /// Clears `draining`, and waits until the agent's watch has shown the change. Before that, the agent refuses ADDs
    /// from the pool.
    pub async fn undrain(&mut self, node: &SingleNode) -> Result<()> {
        let mark = node.api()?.mark();
        self.drain(node, false).await?;
        let events = Selector::verbs(&["event"]).of("addresspools").named(self.pool);
        wait_until("the watch shows that the pool is no longer draining", WAIT_TIMEOUT, || async {
            let seen = node.api()?.observed(mark, &events);
            let told = seen.last().is_some_and(|event| serves(&event.body));
            Ok(check(told, || format!("{} events", seen.len())))
        })
        .await
    }

    /// The name of a pod's object. The agent's files contain this name.
    pub fn name_of(&self, number: usize) -> String {
        format!("{}-{number}", self.pool)
    }

    /// Deletes every pod and the other node's assignments, and waits until nothing is left.
    pub async fn end(self, node: &SingleNode) -> Result<()> {
        for pod in &self.pods {
            node.del(pod)?;
        }
        for number in 0..self.pods.len() {
            node.delete_kube_pod("default", &self.name_of(number)).await?;
        }
        drop(self.pods);
        remove_other_node(node).await?;
        node.await_assignments(&[], WAIT_TIMEOUT).await?;
        wait_until("the node has no pod link left", WAIT_TIMEOUT, || async {
            let links = node.attachments()?;
            Ok(check(links.is_empty(), || format!("{links:?}")))
        })
        .await
    }
}

/// A block.
#[derive(Clone, Debug)]
pub struct Block {
    pub name: String,
    pub range: IpNet,
}

impl Block {
    /// The block that contains an address.
    pub async fn with(node: &SingleNode, address: IpAddr) -> Result<Self> {
        let ranges = node.blocks().await?.into_iter().filter_map(|block| {
            let range: IpNet = block.spec.ipv4.as_deref()?.parse().ok()?;
            Some(Self { name: block.metadata.name?, range })
        });
        ranges
            .into_iter()
            .find(|block| block.range.contains(&address))
            .with_context(|| format!("{address} is in no block"))
    }

    /// The block's object, if it exists.
    pub async fn get(&self, node: &SingleNode) -> Result<Option<AddressBlock>> {
        Ok(blocks(node).get_opt(&self.name).await?)
    }

    /// The node that owns the block.
    pub async fn owner(&self, node: &SingleNode) -> Result<Option<String>> {
        Ok(self.get(node).await?.and_then(|block| block.spec.node_name))
    }

    /// Removes the block's owner, as an administrator, the operator or a restored etcd may do.
    pub async fn free(&self, node: &SingleNode) -> Result<()> {
        let gone = json!({"nodeName": null, "nodeUID": null, "nodeIPv4": null, "nodeIPv6": null, "freeSince": now()});
        self.patch(node, gone).await
    }

    /// Lets the other node claim the block. Meanwhile the proxy holds this node's writes of blocks, so that this node
    /// can't claim the block first.
    pub async fn give_to_other_node(&self, node: &SingleNode) -> Result<()> {
        let nodes: Api<Node> = Api::all(node.client.clone());
        if nodes.get_opt(OTHER).await?.is_none() {
            let other = serde_json::from_value(json!({"metadata": {"name": OTHER}}))?;
            nodes.create(&PostParams::default(), &other).await?;
        }
        let uid = nodes.get(OTHER).await?.metadata.uid;
        let _held =
            node.api()?.inject(Selector::verbs(WRITES).of("addressblocks").named(&self.name), Fault::HoldRequest);
        self.free(node).await?;
        let claim = json!({"nodeName": OTHER, "nodeUID": uid, "nodeIPv4": "10.100.0.77", "freeSince": null});
        let patch = json!({"metadata": {"finalizers": ["bobbin.dev/in-use"]}, "spec": claim});
        blocks(node).patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Changes fields of the block's spec.
    pub async fn patch(&self, node: &SingleNode, spec: Value) -> Result<()> {
        let patch = json!({"spec": spec});
        blocks(node).patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Whether route table 119 contains the block.
    pub fn is_exported(&self, node: &SingleNode) -> Result<bool> {
        let single = self.range.addr().to_string();
        let routes = node.table(119)?;
        Ok(routes.iter().any(|(dst, _)| *dst == self.range.to_string() || *dst == single))
    }

    /// Creates assignments of the other node for the block's addresses. Leaves out the addresses in `taken`, and the
    /// last `left` of the remaining addresses. Returns the assigned addresses.
    pub async fn assign_to_other_node(
        &self,
        node: &SingleNode,
        pool: &str,
        taken: &[IpAddr],
        left: usize,
    ) -> Result<Vec<IpAddr>> {
        let all = self.range.to_string().parse::<ipnet::Ipv4Net>()?;
        let from = u32::from(all.network());
        let free: Vec<IpAddr> = (0..1_u32 << (32 - all.prefix_len()))
            .map(|offset| IpAddr::from((from + offset).to_be_bytes()))
            .filter(|address| !taken.contains(address))
            .collect();
        let assigned_elsewhere = free[..free.len() - left].to_vec();
        for address in &assigned_elsewhere {
            self.create_foreign_assignment(node, pool, *address).await?;
        }
        Ok(assigned_elsewhere)
    }

    /// Creates an assignment of the other node for one address of the block.
    pub async fn create_foreign_assignment(&self, node: &SingleNode, pool: &str, address: IpAddr) -> Result<()> {
        let spec: IPAssignmentSpec = serde_json::from_value(json!({
            "poolName": pool, "blockName": self.name, "nodeName": OTHER, "ipv4": address.to_string(),
            "containerID": ELSEWHERE, "ifName": "eth0", "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "boot",
        }))?;
        assignments(node).create(&PostParams::default(), &IPAssignment::new(&address.to_string(), spec)).await?;
        Ok(())
    }

    /// Waits until the agent's watch has shown a change of the block after the mark. The caller has made this node lose
    /// the block.
    pub async fn await_lost_event(&self, node: &SingleNode, mark: usize) -> Result<()> {
        let events = Selector::verbs(&["event"]).of("addressblocks").named(&self.name);
        wait_until("the watch shows that this node lost the block", WAIT_TIMEOUT, || async {
            let seen = node.api()?.observed(mark, &events);
            Ok(check(!seen.is_empty(), || "no event".to_owned()))
        })
        .await
    }
}

pub fn blocks(node: &SingleNode) -> Api<AddressBlock> {
    Api::all(node.client.clone())
}

pub fn pools(node: &SingleNode) -> Api<AddressPool> {
    Api::all(node.client.clone())
}

pub fn assignments(node: &SingleNode) -> Api<IPAssignment> {
    Api::all(node.client.clone())
}

/// Whether a watch event shows a pool that is ready and not draining.
fn serves(line: &str) -> bool {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let conditions = event["object"]["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
    ready && event["object"]["spec"]["draining"] != true
}

/// The current time in the API's format.
pub fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// Deletes an assignment, as an administrator does.
pub async fn delete_assignment(node: &SingleNode, address: IpAddr) -> Result<()> {
    assignments(node).delete(&address.to_string(), &DeleteParams::default()).await?;
    Ok(())
}

/// The container ID in the assignment of an address, if the assignment exists.
pub async fn assignment_holder(node: &SingleNode, address: IpAddr) -> Result<Option<String>> {
    Ok(assignments(node).get_opt(&address.to_string()).await?.map(|assignment| assignment.spec.container_id))
}

/// Deletes the other node's assignments and releases its blocks.
pub async fn remove_other_node(node: &SingleNode) -> Result<()> {
    for assignment in node.assignments().await?.into_iter().filter(|assignment| assignment.spec.node_name == OTHER) {
        assignments(node).delete(&assignment.metadata.name.unwrap_or_default(), &DeleteParams::default()).await?;
    }
    for block in node.blocks().await?.into_iter().filter(|block| block.spec.node_name.as_deref() == Some(OTHER)) {
        let range = block.spec.ipv4.as_deref().context("no range")?.parse()?;
        Block { name: block.metadata.name.unwrap_or_default(), range }.free(node).await?;
    }
    Ok(())
}

/// The messages of all Warning events on the Node.
pub async fn node_warnings(node: &SingleNode) -> Result<Vec<String>> {
    let events: Api<Event> = Api::all(node.client.clone());
    let all = events.list(&ListParams::default()).await?.items.into_iter().filter(|event| {
        let of_node = event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(NODE));
        of_node && event.type_.as_deref() == Some("Warning")
    });
    Ok(all.filter_map(|event| event.note).collect())
}

/// Waits until a Warning event on the Node contains all these words.
pub async fn await_node_warning(node: &SingleNode, words: &[&str]) -> Result<()> {
    wait_until(&format!("a Warning event on the Node contains {words:?}"), WAIT_TIMEOUT, || async {
        let warnings = node_warnings(node).await?;
        let said = warnings.iter().any(|note| words.iter().all(|word| note.contains(word)));
        Ok(check(said, || format!("{warnings:?}")))
    })
    .await
}

/// After an outage, waits until the agent has listed the objects that an ADD needs.
pub async fn await_contact(node: &SingleNode, mark: usize) -> Result<()> {
    wait_until("the agent has listed its objects again", WAIT_TIMEOUT, || async {
        let seen =
            |kind| Ok::<_, anyhow::Error>(node.api()?.observed(mark, &Selector::verbs(&["list", "watch"]).of(kind)));
        for kind in ["addresspools", "pods", "namespaces"] {
            if seen(kind)?.is_empty() {
                return Ok(Poll::Pending(format!("the agent has not listed {kind}")));
            }
        }
        Ok(Poll::Ready(()))
    })
    .await
}

/// The address in the answer of an ADD, if the ADD succeeded.
pub fn answered(answer: &Answer) -> Result<Option<IpAddr>> {
    if answer.exit != 0 {
        return Ok(None);
    }
    let result = answer.ok()?;
    let text = result["ips"][0]["address"].as_str().and_then(|text| text.split('/').next()).context("no address")?;
    Ok(Some(text.parse()?))
}

/// Checks that an ADD got no address of this block, which the other node owns.
pub fn must_not_be_of(answer: &Answer, block: &Block) -> Result<()> {
    if let Some(address) = answered(answer)? {
        ensure!(!block.range.contains(&address), "the ADD got {address} of block {}, which {OTHER} owns", block.name);
    }
    Ok(())
}

/// Waits until a file in the run directory names the pod. A restarted agent then knows the pod without the API server.
pub async fn await_checkpointed(node: &SingleNode, pod: &str) -> Result<()> {
    wait_until(&format!("the run directory names the pod {pod}"), WAIT_TIMEOUT, || async {
        Ok(check(names(&node.run_dir(), pod), || "no file names the pod".to_owned()))
    })
    .await
}

fn names(directory: &Path, word: &str) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return names(&path, word);
        }
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&format!("\"{word}\"")))
    })
}
