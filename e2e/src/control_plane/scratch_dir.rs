//! Directories that are gone after the run, whatever ends it: the next run removes what a killed one left.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A directory of one run. Removed when dropped; if that did not happen, by the next [`ScratchDir::make`] of the same prefix.
#[derive(Debug)]
pub struct ScratchDir {
    directory: PathBuf,
    /// Locked as long as the run lives; the kernel unlocks it, however the run ends.
    _lock: File,
}

impl ScratchDir {
    /// Makes a directory in the system's place for temporary files.
    pub fn make(prefix: &str) -> Result<Self> {
        remove_left_over(prefix);
        let directory =
            tempfile::Builder::new().prefix(prefix).tempdir().context("no temporary directory can be made")?.keep();
        let lock = File::create(directory.join("lock.new"))?;
        lock.lock()?;
        // It gets its name when it is locked: nobody ever sees it unlocked while the run lives.
        std::fs::rename(directory.join("lock.new"), directory.join("lock"))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Removes directories whose run has ended. One without a lock file is being made right now.
fn remove_left_over(prefix: &str) {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
