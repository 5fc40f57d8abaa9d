//! Recordings of released versions of Bobbin. A recording has the API objects and the run directory of a real run, and
//! later versions must be able to read both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, IPAssignmentSpec};
use kube::Resource;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use crate::network::NetworkFault;
use crate::single_node::{SingleNode, SingleNodeOptions, WAIT_TIMEOUT};
use crate::wait::{check, wait_until};

/// The pool of the recording. Each of its blocks has four addresses.
pub const POOL: &str = "recorded";
/// The name of another node. Assignments of this other node hold addresses in a block of the recorded node.
const OTHER: &str = "n9";
/// The name of the file with the objects.
const OBJECTS: &str = "objects.json";
/// The subdirectory of the recording with the copy of the agent's run directory.
const RUN_DIR: &str = "run";

/// The recording of one version.
pub struct RecordedVersion {
    /// Pools, blocks and assignments as the API server returned them, and the Node with only its name and UID.
    pub objects: Vec<Value>,
    run_dir: PathBuf,
}

impl RecordedVersion {
    /// Opens the recording of a version, such as `0.2.0`.
    pub fn open(version: &str) -> Result<Self> {
        let directory = directory(version);
        let text = std::fs::read_to_string(directory.join(OBJECTS))
            .with_context(|| format!("{} has no recording", directory.display()))?;
        Ok(Self { objects: serde_json::from_str(&text)?, run_dir: directory.join(RUN_DIR) })
    }

    /// The objects of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// Copies the recorded files into a run directory, and replaces the UIDs in them. `uids` maps each recorded UID to its
    /// new UID.
    pub fn restore_run_dir(&self, to: &Path, uids: &BTreeMap<String, String>) -> Result<()> {
        for file in files(&self.run_dir)? {
            let mut text = std::fs::read_to_string(self.run_dir.join(&file))?;
            for (old, new) in uids {
                text = text.replace(old, new);
            }
            let path = to.join(&file);
            std::fs::create_dir_all(path.parent().unwrap_or(to))?;
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Runs the operator and the agent, and writes their API objects and the agent's run directory to
/// `e2e/recorded/VERSION`.
///
/// The recording has pods with addresses of two blocks, cooling addresses, excluded addresses, and a deletion that is
/// waiting for the API server.
pub async fn record() -> Result<PathBuf> {
    let options = SingleNodeOptions { agent: vec!["--add-timeout=8s".to_owned()], ..SingleNodeOptions::default() };
    let mut node = SingleNode::ready(options).await?;
    let subnets = json!([{"ipv4": "10.93.0.0/28", "ipv6": "fd93::/124"}]);
    node.apply_pool(POOL, json!({"subnets": subnets, "blockSizeBits": 2, "cooldownSeconds": 600})).await?;
    node.await_free_blocks(POOL).await?;
    let mut pods = Vec::new();
    for number in 0..4 {
        let pod = node.kube_pod("default", &format!("recorded-{number}"), Some(POOL)).await?;
        if number == 2 {
            exclude_rest_of_block(&node).await?;
        }
        node.add(&pod)?;
        pods.push(pod);
    }
    let ids: Vec<String> = pods.iter().map(|pod| pod.container_id.clone()).collect();
    wait_until("every pod has its assignment, and addresses are excluded", WAIT_TIMEOUT, || async {
        let all = node.assignments().await?;
        let missing = ids.iter().filter(|id| !all.iter().any(|one| one.spec.container_id == **id)).count();
        let excluded = std::fs::read_dir(node.run_dir().join("conflicts"))?.count();
        Ok(check(missing == 0 && excluded > 0, || {
            format!("{missing} assignments are missing, and {excluded} addresses are excluded")
        }))
    })
    .await?;
    node.proxy.set(NetworkFault::Refuse);
    node.del(&pods[3])?;
    for name in ["cooling", "deletions"] {
        wait_until(&format!("the directory {name} in the run directory contains a file"), WAIT_TIMEOUT, || async {
            let count = std::fs::read_dir(node.run_dir().join(name))?.count();
            Ok(check(count > 0, || "it has no file".to_owned()))
        })
        .await?;
    }
    node.kill_agent();
    node.stop_operator();
    let directory = directory(env!("CARGO_PKG_VERSION"));
    write(&node, &directory).await?;
    Ok(directory)
}

/// Creates assignments of another node for the free addresses of the first pod's block, so that the agent excludes
/// these addresses.
async fn exclude_rest_of_block(node: &SingleNode) -> Result<()> {
    let held = node.assignments().await?;
    let block = held.first().context("no pod has an address")?.spec.block_name.clone();
    let own = node.own_blocks(POOL).await?.into_iter().find(|own| own.metadata.name.as_ref() == Some(&block));
    let index = u8::try_from(own.context("the first pod's block does not belong to this node")?.spec.index)?;
    let held: Vec<_> = held.into_iter().filter_map(|one| one.spec.ipv4).collect();
    let assignments: Api<IPAssignment> = Api::all(node.client.clone());
    for last in index * 4..index * 4 + 4 {
        let ipv4 = format!("10.93.0.{last}");
        if held.contains(&ipv4) {
            continue;
        }
        let spec: IPAssignmentSpec = serde_json::from_value(json!({
            "poolName": POOL, "blockName": block, "nodeName": OTHER, "ipv4": ipv4, "ipv6": format!("fd93::{last:x}"),
            "containerID": "elsewhere", "ifName": "eth0", "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "boot",
        }))?;
        assignments.create(&PostParams::default(), &IPAssignment::new(&ipv4, spec)).await?;
    }
    Ok(())
}

async fn write(node: &SingleNode, directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    let mut objects = list::<AddressPool>(node).await?;
    objects.extend(list::<AddressBlock>(node).await?);
    objects.extend(list::<IPAssignment>(node).await?);
    objects.push(node_object(node).await?);
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join(OBJECTS), format!("{}\n", serde_json::to_string_pretty(&objects)?))?;
    for file in files(&node.run_dir())? {
        let path = directory.join(RUN_DIR).join(&file);
        std::fs::create_dir_all(path.parent().unwrap_or(directory))?;
        std::fs::copy(node.run_dir().join(&file), &path)?;
    }
    Ok(())
}

/// All objects of a kind, as the API server returns them.
async fn list<K: Resource<DynamicType = ()>>(node: &SingleNode) -> Result<Vec<Value>> {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(node.client.clone(), &resource);
    let objects = api.list(&ListParams::default()).await?.items.into_iter();
    let whole = objects.map(|object| {
        let mut object = serde_json::to_value(object)?;
        (object["apiVersion"], object["kind"]) = (json!(resource.api_version), json!(resource.kind));
        Ok(object)
    });
    whole.collect()
}

/// The Node, with only its name and its UID.
async fn node_object(node: &SingleNode) -> Result<Value> {
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(node.client.clone());
    let metadata = nodes.get(crate::single_node::NODE).await?.metadata;
    Ok(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": metadata.name, "uid": metadata.uid}}))
}

/// The directory of a version's recording.
fn directory(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(version)
}

/// The paths of the regular files under a directory, relative to the directory. Leaves out the lock and the sockets,
/// because later versions do not read them.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(relative) = open.pop() {
        for entry in std::fs::read_dir(directory.join(&relative))? {
            let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
            let path = relative.join(entry.file_name());
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && path != Path::new("lock") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
