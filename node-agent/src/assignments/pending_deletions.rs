//! The queue of deletions on disk, under the run directory: one small file each, so that a DEL that was answered is not forgotten by a
//! restart. Gone with a reboot, when the records of the earlier boot are released as a whole.

use std::path::{Path, PathBuf};

use bobbin_ipam::AttachmentKey;
use serde::{Deserialize, Serialize};

use crate::state::atomic_file;

/// A record that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingDeletion {
    /// The record's name.
    pub name: String,
    /// The attachment whose record it is.
    pub key: AttachmentKey,
    /// The record's UID, if known.
    pub uid: Option<String>,
}

/// The directory.
#[derive(Debug)]
pub(super) struct PendingDeletions(PathBuf);

impl PendingDeletions {
    pub(super) fn open(directory: &Path) -> std::io::Result<PendingDeletions> {
        std::fs::create_dir_all(directory)?;
        atomic_file::tidy(directory)?;
        Ok(PendingDeletions(directory.to_owned()))
    }

    /// Writes one down; a second one of the same attachment takes its place.
    pub(super) fn save(&self, deletion: &PendingDeletion) -> std::io::Result<()> {
        atomic_file::replace(&self.path(&deletion.name, &deletion.key), &serde_json::to_vec(deletion)?, 0o600)
    }

    /// Forgets one that is done.
    pub(super) fn remove(&self, name: &str, key: &AttachmentKey) {
        match std::fs::remove_file(self.path(name, key)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(name, %key, %error, "a finished deletion could not be struck off; it will be tried again after a restart");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// All that the last run left. A file that can't be read is left out and reported: the relist finds its record.
    pub(super) fn load(&self) -> Vec<PendingDeletion> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "the queued deletions can't be read; the relist finds their records");
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
        let whose = bobbin_ipam::hash::stable(&[key.container_id.as_bytes(), key.if_name.as_bytes()]);
        self.0.join(format!("{name}~{whose:016x}.json"))
    }
}

fn read(path: &Path) -> Option<PendingDeletion> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string());
    match bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string())) {
        Ok(deletion) => Some(deletion),
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "a queued deletion can't be read; the relist finds its record");
            None
        }
    }
}

#[cfg(test)]
mod tests;
