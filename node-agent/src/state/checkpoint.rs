//! What must outlive the agent but not a reboot: one file per attachment, the node's blocks, the cooling addresses, the boot. It
//! never decides that something is free: a file that can't be read stays, and is reported.

pub(crate) mod blocks;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bobbin_cni_wire::READY_MARKER;
use bobbin_ipam::{AttachmentKey, BootTime, IpPair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state::atomic_file;
use crate::state::{Attachment, ConflictingAssignment, CoolingAddress, SavedBlock};

/// The mode of its files: they name pods.
const MODE: u32 = 0o600;

/// The directory under `--run-dir`, on a tmpfs: a rename is the whole crash safety that it needs, and a reboot empties it.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    root: PathBuf,
}

/// A file of the journal could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be {what}: {source}", path.display())]
pub struct CheckpointError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// What [`Journal::load`] found.
#[derive(Debug, Default)]
pub struct Kept {
    /// The attachments.
    pub attachments: Vec<Attachment>,
    /// Files of attachments that can't be read: what they stand for is in use.
    pub unreadable: Vec<PathBuf>,
    /// The blocks that were this node's when the agent last wrote them down.
    pub blocks: Vec<SavedBlock>,
    /// Addresses that rest.
    pub cooling: Vec<CoolingAddress>,
    /// Addresses that another attachment had a record of.
    pub passed_over: Vec<ConflictingAssignment>,
}

/// Which boot the directory is of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Boot {
    boot_id: String,
}

impl Checkpoint {
    /// Makes the directories.
    ///
    /// # Errors
    /// They can't be made.
    pub fn open(run_dir: &Path) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint { root: run_dir.to_owned() };
        for dir in [
            checkpoint.root.clone(),
            checkpoint.attachments(),
            checkpoint.cooling_addresses(),
            checkpoint.passed_over(),
        ] {
            let made = fs::create_dir_all(&dir).and_then(|()| atomic_file::tidy(&dir));
            made.map_err(|source| CheckpointError { path: dir, what: "made", source })?;
        }
        Ok(checkpoint)
    }

    /// Whether the directory is of an earlier boot, or of none; from now on it is of this one. What an earlier boot left is removed: its
    /// links are gone with it.
    ///
    /// # Errors
    /// The marker can't be written.
    pub fn begin_boot(&self, boot_id: &str) -> Result<bool, CheckpointError> {
        let path = self.root.join("boot");
        let ours = Boot { boot_id: boot_id.to_owned() };
        match read::<Boot>(&path) {
            Ok(found) if found == ours => return Ok(false),
            Ok(_) => {
                for dir in [self.attachments(), self.cooling_addresses(), self.passed_over()] {
                    for path in files(&dir) {
                        remove(&path)?;
                    }
                }
                for name in ["blocks.json", READY_MARKER, "cluster.json"] {
                    remove(&self.root.join(name))?;
                }
            }
            Err(_) => {}
        }
        write(&path, &ours)?;
        Ok(true)
    }

    /// Reads everything. What can't be read is reported, never dropped.
    pub fn load(&self) -> Kept {
        let mut kept = Kept::default();
        for path in files(&self.attachments()) {
            match read::<Attachment>(&path) {
                Ok(attachment) => kept.attachments.push(attachment),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "the checkpoint of an attachment can't be read: its address counts as in use");
                    kept.unreadable.push(path);
                }
            }
        }
        kept.cooling = files(&self.cooling_addresses()).iter().filter_map(|path| read(path).ok()).collect();
        kept.passed_over = files(&self.passed_over()).iter().filter_map(|path| read(path).ok()).collect();
        let blocks = self.root.join("blocks.json");
        kept.blocks = read(&blocks).unwrap_or_else(|error| {
            if blocks.exists() {
                tracing::error!(path = %blocks.display(), %error, "the list of blocks can't be read: it is asked for anew");
            }
            Vec::new()
        });
        kept
    }

    /// Keeps an attachment.
    ///
    /// # Errors
    /// The file can't be written; what was there before is untouched.
    pub fn keep(&self, attachment: &Attachment) -> Result<(), CheckpointError> {
        write(&self.attachment(&attachment.key), attachment)
    }

    /// Forgets an attachment whose address cools from `since`: the rest is written first.
    ///
    /// # Errors
    /// A file can't be written or removed.
    pub fn forget(&self, key: &AttachmentKey, pair: IpPair, since: BootTime) -> Result<(), CheckpointError> {
        self.keep_cooling(&CoolingAddress { pair, since })?;
        remove(&self.attachment(key))
    }

    /// Keeps an address that cools.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_cooling(&self, cooling: &CoolingAddress) -> Result<(), CheckpointError> {
        write(&self.rest(cooling.pair), cooling)
    }

    /// Keeps an address that is passed over.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_passed_over(&self, record: &ConflictingAssignment) -> Result<(), CheckpointError> {
        write(&self.passed_over().join(format!("{}.json", record.name)), record)
    }

    /// Forgets an address that was passed over.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn forget_passed_over(&self, record: &ConflictingAssignment) -> Result<(), CheckpointError> {
        remove(&self.passed_over().join(format!("{}.json", record.name)))
    }

    /// Forgets cool-downs that began before a moment.
    pub fn prune_cooling(&self, before: BootTime) {
        for path in files(&self.cooling_addresses()) {
            if read::<CoolingAddress>(&path).is_ok_and(|rest| rest.since < before)
                && let Err(error) = remove(&path)
            {
                tracing::warn!(%error, "the file of an expired cool-down could not be removed");
            }
        }
    }

    /// Keeps the list of blocks.
    ///
    /// # Errors
    /// It can't be written.
    pub fn keep_blocks(&self, blocks: &[SavedBlock]) -> Result<(), CheckpointError> {
        write(&self.root.join("blocks.json"), &blocks)
    }

    fn attachments(&self) -> PathBuf {
        self.root.join("attachments")
    }

    fn cooling_addresses(&self) -> PathBuf {
        self.root.join("resting")
    }

    fn passed_over(&self) -> PathBuf {
        self.root.join("passed-over")
    }

    fn attachment(&self, key: &AttachmentKey) -> PathBuf {
        self.attachments().join(format!("{}-{}.json", key.container_id, key.if_name))
    }

    fn rest(&self, pair: IpPair) -> PathBuf {
        let name: Vec<String> = pair.addresses().map(|address| address.to_string()).collect();
        self.cooling_addresses().join(format!("{}.json", name.join("_")))
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CheckpointError> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from);
    bytes.and_then(|bytes| atomic_file::replace(path, &bytes, MODE)).map_err(|source| CheckpointError {
        path: path.to_owned(),
        what: "written",
        source,
    })
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    let removed = atomic_file::remove(path);
    removed.map(drop).map_err(|source| CheckpointError { path: path.to_owned(), what: "removed", source })
}

#[cfg(test)]
mod tests;
