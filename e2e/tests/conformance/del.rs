//! DEL succeeds even if parts of an attachment are missing, and removes the parts that exist.

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{Call, SingleNode, random_container_id};
use serde_json::json;

use super::nothing_is_left;

pub async fn repeated(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    node.add(&pod)?;
    for _ in 0..3 {
        node.del(&pod)?;
    }
    nothing_is_left(node, &pod.container_id).await
}

pub async fn with_something_missing(node: &mut SingleNode) -> Result<()> {
    // Call DEL with the path of a network namespace that no longer exists.
    let pod = node.sandbox()?;
    node.add(&pod)?;
    let (id, call) = (pod.container_id.clone(), pod.call("DEL"));
    drop(pod);
    node.call(&call)?.ok()?;
    nothing_is_left(node, &id).await?;
    // Call DEL without a path of a network namespace, as runtimes do after a reboot.
    let pod = node.sandbox()?;
    node.add(&pod)?;
    node.call(&Call { netns: None, ..pod.call("DEL") })?.ok()?;
    nothing_is_left(node, &pod.container_id).await?;
    // Call DEL for a deleted link, with a prevResult that can't be decoded.
    let pod = node.sandbox()?;
    node.add(&pod)?;
    pod.namespace.ip("link del eth0")?;
    node.call(&pod.call("DEL").with("prevResult", json!([])))?.ok()?;
    nothing_is_left(node, &pod.container_id).await
}

pub async fn without_a_checkpoint(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    node.add(&pod)?;
    node.kill_agent();
    let mut removed = 0;
    for entry in std::fs::read_dir(node.run_dir().join("attachments"))? {
        let path = entry?.path();
        if path.to_string_lossy().contains(&pod.container_id) {
            std::fs::remove_file(path)?;
            removed += 1;
        }
    }
    ensure!(removed == 1, "the container must have one checkpoint, but had {removed}");
    node.start_agent().await?;
    node.del(&pod)?;
    ensure!(pod.addresses()?.is_empty(), "the pod's link still exists");
    nothing_is_left(node, &pod.container_id).await
}

pub async fn of_a_stranger(node: &mut SingleNode) -> Result<()> {
    node.call(&Call::of("DEL", &random_container_id(), "eth0", None))?.ok()?;
    Ok(())
}
