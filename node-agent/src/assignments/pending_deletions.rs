//! Saves each pending deletion of an assignment in a small file. A restarted agent reads these files and completes the deletions.
//!
//! A reboot removes the files of pending deletions. The resync then deletes all assignments of the earlier boot.

use std::path::{Path, PathBuf};

use bobbin_ipam::AttachmentKey;
use serde::{Deserialize, Serialize};

use crate::state::atomic_file;

/// An assignment that the agent must delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingDeletion {
    /// The assignment's name.
    pub name: String,
    /// The attachment that the assignment names.
    pub key: AttachmentKey,
    /// The assignment's UID, if known.
    pub uid: Option<String>,
}

/// The directory of the pending deletions.
#[derive(Debug)]
pub(super) struct PendingDeletions(PathBuf);

impl PendingDeletions {
    pub(super) fn open(directory: &Path) -> std::io::Result<PendingDeletions> {
        std::fs::create_dir_all(directory)?;
        atomic_file::tidy(directory)?;
        Ok(PendingDeletions(directory.to_owned()))
    }

    /// Saves a pending deletion. Replaces the file of an earlier deletion with the same assignment name and the same attachment.
    pub(super) fn save(&self, deletion: &PendingDeletion) -> std::io::Result<()> {
        atomic_file::replace(&self.path(&deletion.name, &deletion.key), &serde_json::to_vec(deletion)?, 0o600)
    }

    /// Removes the file of a completed deletion.
    pub(super) fn remove(&self, name: &str, key: &AttachmentKey) {
        match std::fs::remove_file(self.path(name, key)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(name, %key, %error, "the agent could not remove the file of a completed deletion; after a restart, the agent repeats the deletion");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Loads the pending deletions that an earlier run of the agent left. Logs and skips each unreadable file. The resync finds and deletes
    /// the assignment of an unreadable file.
    pub(super) fn load(&self) -> Vec<PendingDeletion> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "the agent can't read the directory of its pending deletions; the resync deletes the assignments instead");
                return Vec::new();
            }
        };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
            .filter_map(|path| read(&path))
            .collect()
    }

    fn path(&self, name: &str, key: &AttachmentKey) -> PathBuf {
        let whose = bobbin_ipam::hash::stable_hash(&[key.container_id.as_bytes(), key.if_name.as_bytes()]);
        self.0.join(format!("{name}~{whose:016x}.json"))
    }
}

fn read(path: &Path) -> Option<PendingDeletion> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string());
    match bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string())) {
        Ok(deletion) => Some(deletion),
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "the agent can't read the file of a pending deletion; the resync deletes the assignment instead");
            None
        }
    }
}

#[cfg(test)]
mod tests;
