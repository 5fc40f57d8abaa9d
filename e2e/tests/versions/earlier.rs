//! The current operator and agent take over the objects and the run directory of an earlier version.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use bobbin_e2e::recorded_version::{POOL, RecordedVersion};
use bobbin_e2e::single_node::{Call, NODE, SingleNode, SingleNodeOptions, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub async fn v0_2_0(_shared: &mut SingleNode) -> Result<()> {
    takes_over("0.2.0").await
}

async fn takes_over(version: &str) -> Result<()> {
    let recorded = RecordedVersion::open(version)?;
    let mut node = SingleNode::start(SingleNodeOptions::default()).await?;
    // Stop the operator, because it would create blocks with the names of the recorded blocks.
    node.stop_operator();
    let mut uids = BTreeMap::new();
    create::<AddressPool>(&node, &recorded, &mut uids).await?;
    create::<AddressBlock>(&node, &recorded, &mut uids).await?;
    create::<IPAssignment>(&node, &recorded, &mut uids).await?;
    let new = Api::<Node>::all(node.client.clone()).get(NODE).await?.metadata.uid.context("the Node has no UID")?;
    for old in recorded.of_kind("Node").filter_map(|node| node["metadata"]["uid"].as_str()) {
        uids.insert(old.to_owned(), new.clone());
    }
    recorded.restore_run_dir(&node.run_dir(), &uids)?;
    let held = attachments(&node.run_dir())?;
    ensure!(held.len() == 3, "the recording must have three attachments, but has {}", held.len());
    node.start_operator()?;
    node.start_agent().await?;

    // When the earlier version was recorded, its agent still had to delete one assignment. The current agent must
    // delete this assignment and keep all others.
    let names = |objects: &mut dyn Iterator<Item = String>| objects.collect::<Vec<_>>();
    let all = names(
        &mut recorded.of_kind("IPAssignment").filter_map(|one| Some(one["metadata"]["name"].as_str()?.to_owned())),
    );
    let deleted = wait_until("the agent has made the recorded deletion", WAIT_TIMEOUT, || async {
        let left = names(&mut node.assignments().await?.into_iter().filter_map(|one| one.metadata.name));
        let deleted: Vec<String> = all.iter().filter(|name| !left.contains(name)).cloned().collect();
        Ok(if deleted.is_empty() { Poll::Pending(format!("{left:?}")) } else { Poll::Ready(deleted) })
    })
    .await?;
    ensure!(deleted.len() == 1, "the agent must delete one assignment, but deleted {deleted:?}");
    // A new pod must get an address that is not in use, not cooling down and not excluded.
    let pod = node.kube_pod("default", "after-upgrade", Some(POOL)).await?;
    wait_until("a new pod gets an address", WAIT_TIMEOUT, || async {
        let answer = node.call(&pod.call("ADD"))?;
        Ok(check(answer.exit == 0, || answer.stdout.trim().to_owned()))
    })
    .await?;
    let addresses: Vec<String> = pod.addresses()?.iter().map(ToString::to_string).collect();
    let taken: Vec<&str> = addresses.iter().filter(|&address| all.contains(address)).map(String::as_str).collect();
    ensure!(taken.is_empty(), "the new pod got {taken:?}, but recorded assignments name these addresses");
    let now = attachments(&node.run_dir())?;
    let lost: Vec<&String> = held.iter().filter(|file| !now.contains(file)).collect();
    ensure!(lost.is_empty(), "the agent lost the attachments {lost:?}");
    wait_until("the operator counts the recorded addresses", WAIT_TIMEOUT, || async {
        let status = Api::<AddressPool>::all(node.client.clone()).get(POOL).await?.status.unwrap_or_default();
        Ok(check(status.used == i64::try_from(all.len()).unwrap_or(0), || format!("{status:?}")))
    })
    .await?;
    delete_recorded(&node, &held).await
}

/// Calls DEL for each recorded attachment. The agent finds an attachment only if it could read the file of this
/// attachment.
async fn delete_recorded(node: &SingleNode, files: &[String]) -> Result<()> {
    for file in files {
        let id = file
            .strip_suffix("-eth0.json")
            .with_context(|| format!("the run directory has the unexpected file {file}"))?;
        node.call(&Call::of("DEL", id, "eth0", None))?
            .ok()
            .with_context(|| format!("the DEL of container {id} failed"))?;
    }
    let recorded = |assignment: &IPAssignment| files.iter().any(|file| file.starts_with(&assignment.spec.container_id));
    wait_until("the agent has removed the recorded attachments and their assignments", WAIT_TIMEOUT, || async {
        let files_left = attachments(&node.run_dir())?.into_iter().filter(|file| files.contains(file)).count();
        let left = node.assignments().await?.iter().filter(|one| recorded(one)).count();
        Ok(check(files_left == 0 && left == 0, || format!("{files_left} files and {left} assignments are left")))
    })
    .await
}

/// Decodes each recorded object of a kind as the current programs do, and creates it. Adds the object's new UID to
/// `uids`.
async fn create<K>(node: &SingleNode, recorded: &RecordedVersion, uids: &mut BTreeMap<String, String>) -> Result<()>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(node.client.clone(), &resource);
    for recorded in recorded.of_kind(&resource.kind) {
        let name = recorded["metadata"]["name"].as_str().context("the recorded object has no name")?;
        let what = || format!("{} {name}", resource.kind);
        serde_json::from_value::<K>(recorded.clone()).with_context(what)?;
        let mut object = recorded.clone();
        let metadata =
            json!({"name": name, "finalizers": recorded["metadata"].get("finalizers").cloned().unwrap_or(json!([]))});
        object["metadata"] = metadata;
        let made = api.create(&PostParams::default(), &serde_json::from_value(object)?).await.with_context(what)?;
        if let Some(status) = recorded.get("status") {
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status(name, &PatchParams::default(), &patch).await.with_context(what)?;
        }
        if let (Value::String(old), Some(new)) = (&recorded["metadata"]["uid"], made.metadata.uid) {
            uids.insert(old.clone(), new);
        }
    }
    Ok(())
}

/// The names of the attachment files in a run directory.
fn attachments(run_dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(run_dir.join("attachments"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
