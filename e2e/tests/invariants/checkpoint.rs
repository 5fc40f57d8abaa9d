//! Plants faults in the agent's files.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bobbin_e2e::invariants::Kind;
use bobbin_e2e::single_node::{Sandbox, SingleNode};
use serde_json::{Value, json};

use super::stage::Stage;

fn file_of(stage: &Stage<'_>, pod: &Sandbox) -> PathBuf {
    stage.node.run_dir().join("attachments").join(format!("{}-eth0.json", pod.container_id))
}

pub async fn planted(node: &mut SingleNode) -> Result<()> {
    let stage = Stage::set(node).await?;
    let address = stage.ada.addresses()?.first().context("the pod ada has no address")?.to_string();
    let path = file_of(&stage, &stage.ada);
    let saved = std::fs::read_to_string(&path)?;

    std::fs::remove_file(&path)?;
    stage
        .sees(Kind::AddressInUseFreed, &["default/ada", &address, "checkpoint of n1 does not hold the address"])
        .await?;
    stage.sees(Kind::MissingInCheckpoint, &["node n1 has link", "default/ada"]).await?;
    stage.sees(Kind::MissingInCheckpoint, &["node n1", "route to", &address, "table 116"]).await?;
    stage.sees(Kind::LeakedAssignment, &["default/ada", "no such attachment"]).await?;
    std::fs::write(&path, &saved)?;
    stage.is_clean().await?;

    std::fs::write(&path, "{")?;
    stage.sees(Kind::Unread, &["checkpoint of n1", "can't be read"]).await?;
    std::fs::write(&path, &saved)?;

    // Plant a second attachment that has the address of the first.
    let mut twin: Value = serde_json::from_str(&saved)?;
    twin["key"]["containerId"] = json!("twin");
    let twin_path = path.with_file_name("twin-eth0.json");
    std::fs::write(&twin_path, twin.to_string())?;
    stage.sees(Kind::DuplicateAddress, &["default/ada", "twin", &address, "checkpoint on n1"]).await?;
    stage.sees(Kind::MissingInKernel, &["checkpoint of n1", "twin", "no host link"]).await?;
    std::fs::remove_file(&twin_path)?;
    stage.is_clean().await?;

    // Plant the name of a block that the node has not claimed. A restarted agent would assign from this block.
    let path = stage.node.run_dir().join("blocks.json");
    let saved = std::fs::read_to_string(&path)?;
    let mut blocks: Value = serde_json::from_str(&saved)?;
    blocks[0]["block"]["name"] = json!("default-999");
    std::fs::write(&path, blocks.to_string())?;
    stage.sees(Kind::SavedBlocksDiffer, &["n1", "default-999", "has not claimed"]).await?;
    std::fs::write(&path, saved)?;
    stage.is_clean().await?;
    stage.strike().await
}
