//! The checkpoint in the run directory: attachments, blocks, cooling addresses and excluded addresses. The checkpoint survives a restart of
//! the agent, but not a reboot. If the agent can't read the file of an attachment, it reports the file and does not remove it. The agent
//! then restores the attachment from its host link. If there is no host link, the agent restores only the attachment's key, from the file
//! name.

pub(crate) mod blocks;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bobbin_ipam::{AttachmentKey, BootTime, IpPair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state::atomic_file;
use crate::state::layout;
use crate::state::{Attachment, CheckpointedBlock, ConflictingAssignment, CoolingAddress};

/// The file mode of the checkpoint's files. Only root may read the files, because they name pods.
const FILE_MODE: u32 = 0o600;

/// The checkpoint's directory, which is on a tmpfs. Files that were renamed without a sync survive a crash of the agent. A reboot empties
/// the directory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    root: PathBuf,
}

/// A file of the checkpoint could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be {what}: {source}", path.display())]
pub struct CheckpointError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// The result of [`Checkpoint::load`].
#[derive(Debug, Default)]
pub struct CheckpointContents {
    /// The attachments whose files could be read.
    pub attachments: Vec<Attachment>,
    /// The files of attachments that can't be read. The agent must still restore these attachments, because their pods may be running.
    pub unreadable: Vec<PathBuf>,
    /// The node's blocks, as the agent last wrote them.
    pub blocks: Vec<CheckpointedBlock>,
    /// The cooling addresses.
    pub cooling: Vec<CoolingAddress>,
    /// The conflicts whose addresses are excluded from allocation.
    pub conflicts: Vec<ConflictingAssignment>,
}

/// The content of the boot file, which names the boot to which the checkpoint belongs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Boot {
    boot_id: String,
}

impl Checkpoint {
    /// Creates the directories. If a directory still has its name from version 0.1.0, moves the files of that directory into the directory
    /// with the current name.
    ///
    /// # Errors
    /// A directory can't be created, or a file of version 0.1.0 can't be moved.
    pub fn open(run_dir: &Path) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint { root: run_dir.to_owned() };
        let directories = [layout::ATTACHMENTS, layout::COOLING, layout::CONFLICTS].map(|name| run_dir.join(name));
        for dir in std::iter::once(run_dir.to_owned()).chain(directories) {
            let made = fs::create_dir_all(&dir).and_then(|()| atomic_file::tidy(&dir));
            made.map_err(|source| CheckpointError { path: dir, what: "created", source })?;
        }
        for (old, new) in layout::RENAMED_DIRECTORIES {
            let (old, new) = (run_dir.join(old), run_dir.join(new));
            take_over(&old, &new).map_err(|source| CheckpointError { path: old, what: "renamed", source })?;
        }
        Ok(checkpoint)
    }

    /// Prepares the directory for the current boot. Returns true if the checkpoint belongs to an earlier boot or to an unknown boot.
    /// Removes the files of an earlier boot, because a reboot ends all attachments. Keeps the pending deletions.
    ///
    /// # Errors
    /// A file of an earlier boot can't be removed, or the boot file can't be written.
    pub fn begin_boot(&self, boot_id: &str) -> Result<bool, CheckpointError> {
        let path = self.root.join(layout::BOOT);
        let current = Boot { boot_id: boot_id.to_owned() };
        match read::<Boot>(&path) {
            Ok(found) if found == current => return Ok(false),
            Ok(_) => {
                for name in [layout::ATTACHMENTS, layout::COOLING, layout::CONFLICTS] {
                    for path in files(&self.root.join(name)) {
                        remove(&path)?;
                    }
                }
                for name in [layout::BLOCKS, layout::READY_MARKER, layout::CLUSTER_SNAPSHOT] {
                    remove(&self.root.join(name))?;
                }
            }
            Err(_) => {}
        }
        write(&path, &current)?;
        Ok(true)
    }

    /// Reads all files of the checkpoint and removes none of them. Logs an error for each unreadable file of an attachment or of the
    /// blocks.
    pub fn load(&self) -> CheckpointContents {
        let mut contents = CheckpointContents::default();
        for path in files(&self.root.join(layout::ATTACHMENTS)) {
            match read::<Attachment>(&path) {
                Ok(attachment) => contents.attachments.push(attachment),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "the agent can't read the checkpoint of an attachment, so the attachment's address counts as in use");
                    contents.unreadable.push(path);
                }
            }
        }
        let cooling = files(&self.root.join(layout::COOLING));
        contents.cooling = cooling.iter().filter_map(|path| read(path).ok()).collect();
        let conflicts = files(&self.root.join(layout::CONFLICTS));
        contents.conflicts = conflicts.iter().filter_map(|path| read(path).ok()).collect();
        let blocks = self.root.join(layout::BLOCKS);
        contents.blocks = read(&blocks).unwrap_or_else(|error| {
            if blocks.exists() {
                tracing::error!(path = %blocks.display(), %error, "the agent can't read the checkpoint of the node's blocks, so the agent reads the blocks from the API server");
            }
            Vec::new()
        });
        contents
    }

    /// Writes the file of an attachment.
    ///
    /// # Errors
    /// The file can't be written. The old file is unchanged.
    pub fn keep(&self, attachment: &Attachment) -> Result<(), CheckpointError> {
        write(&self.attachment(&attachment.key), attachment)
    }

    /// Writes the file of the address's cool-down, which began at `since`. Then removes the file of the attachment that had the address.
    ///
    /// # Errors
    /// A file can't be written or removed.
    pub fn forget(&self, key: &AttachmentKey, pair: IpPair, since: BootTime) -> Result<(), CheckpointError> {
        let cooling = CoolingAddress { pair, since };
        if self.keep_cooling(&cooling).is_ok() {
            return remove(&self.attachment(key));
        }
        // The file system may be full. Free space by removing the attachment's file, then retry the write of the cool-down. A crash between
        // these two steps loses only the cool-down.
        remove(&self.attachment(key))?;
        self.keep_cooling(&cooling)
    }

    /// Writes the file of a cooling address.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_cooling(&self, cooling: &CoolingAddress) -> Result<(), CheckpointError> {
        let name: Vec<String> = cooling.pair.addresses().map(|address| address.to_string()).collect();
        write(&self.root.join(layout::COOLING).join(format!("{}.json", name.join("_"))), cooling)
    }

    /// Writes the file of a conflict, so that the conflict's address stays excluded after a restart.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_conflict(&self, conflict: &ConflictingAssignment) -> Result<(), CheckpointError> {
        write(&self.conflict(conflict), conflict)
    }

    /// Removes the file of a resolved conflict.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn forget_conflict(&self, conflict: &ConflictingAssignment) -> Result<(), CheckpointError> {
        remove(&self.conflict(conflict))
    }

    /// Removes the files of cool-downs that began before `before`.
    pub fn prune_cooling(&self, before: BootTime) {
        for path in files(&self.root.join(layout::COOLING)) {
            if read::<CoolingAddress>(&path).is_ok_and(|cooling| cooling.since < before)
                && let Err(error) = remove(&path)
            {
                tracing::warn!(%error, "the agent could not remove the file of an expired cool-down; the agent tries again in the next stale-attachment pass");
            }
        }
    }

    /// Writes the list of the node's blocks.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_blocks(&self, blocks: &[CheckpointedBlock]) -> Result<(), CheckpointError> {
        write(&self.root.join(layout::BLOCKS), &blocks)
    }

    fn attachment(&self, key: &AttachmentKey) -> PathBuf {
        self.root.join(layout::ATTACHMENTS).join(format!("{}-{}.json", key.container_id, key.if_name))
    }

    fn conflict(&self, conflict: &ConflictingAssignment) -> PathBuf {
        self.root.join(layout::CONFLICTS).join(format!("{}.json", conflict.name))
    }
}

/// Parses the key of an attachment from the name of the attachment's file, `<containerID>-<ifName>.json`.
pub fn key_of(path: &Path) -> Option<AttachmentKey> {
    let (container_id, if_name) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    Some(AttachmentKey::new(container_id, if_name))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Moves the files of the directory `old` into the directory `new`, and then removes `old`. If the agent crashes during the move, the next
/// start moves the remaining files.
fn take_over(old: &Path, new: &Path) -> io::Result<()> {
    if !old.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(old)? {
        let entry = entry?;
        fs::rename(entry.path(), new.join(entry.file_name()))?;
    }
    fs::remove_dir(old)
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CheckpointError> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from);
    bytes.and_then(|bytes| atomic_file::replace(path, &bytes, FILE_MODE)).map_err(|source| CheckpointError {
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
