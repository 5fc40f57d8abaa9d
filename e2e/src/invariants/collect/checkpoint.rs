//! Reads the files under an agent's run directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bobbin_ipam::{AttachmentKey, IpPair};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::invariants::snapshot::{Checkpoint, PodId, SavedAttachment, SavedBlock};

/// The fields of an attachment's checkpoint file. The rules compare these fields.
#[derive(Deserialize)]
struct AttachmentFile {
    key: AttachmentKey,
    pair: IpPair,
    pod: PodFields,
}

#[derive(Deserialize)]
struct PodFields {
    namespace: String,
    name: String,
    uid: String,
}

/// The fields of a block's checkpoint entry. The rules compare these fields.
#[derive(Deserialize)]
struct BlockEntry {
    block: BlockFields,
    state: serde_json::Value,
}

#[derive(Deserialize)]
struct BlockFields {
    name: String,
}

pub(super) fn read(run_dir: &Path) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint { exists: run_dir.join("boot").exists(), ..Checkpoint::default() };
    for path in attachment_files(&run_dir.join("attachments"))? {
        match file::<AttachmentFile>(&path) {
            Ok(Some(AttachmentFile { key, pair, pod })) => checkpoint.attachments.push(SavedAttachment {
                key,
                addresses: pair.addresses().collect(),
                pod: PodId { namespace: pod.namespace, name: pod.name, uid: pod.uid },
            }),
            // The agent removed the file after the directory was listed.
            Ok(None) => {}
            Err(_) => checkpoint.unreadable.extend(key_of(&path)),
        }
    }
    let blocks = file::<Vec<BlockEntry>>(&run_dir.join("blocks.json"))?.unwrap_or_default();
    checkpoint.blocks = blocks
        .into_iter()
        .map(|entry| SavedBlock { name: entry.block.name, serving: entry.state == "Serving" })
        .collect();
    Ok(checkpoint)
}

/// The content of a file; `None` if the file does not exist.
fn file<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| path.display().to_string())?,
    };
    serde_json::from_slice(&bytes).map(Some).with_context(|| path.display().to_string())
}

fn attachment_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| directory.display().to_string())?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "json")).collect())
}

/// Reads an attachment's key from the name of its file, `<containerID>-<ifName>.json`.
fn key_of(path: &Path) -> Option<AttachmentKey> {
    let (container, interface) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    Some(AttachmentKey::new(container, interface))
}
