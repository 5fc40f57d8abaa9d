//! Directories for the files of one test run. If a run is killed, the next run removes the killed run's directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A directory of one test run. Dropping this value removes the directory. If the run was killed, the next
/// [`ScratchDir::make`] with the same prefix removes the directory.
#[derive(Debug)]
pub struct ScratchDir {
    directory: PathBuf,
    /// A run holds the lock on its directory until the run ends. If the run is killed, the kernel releases the lock.
    _lock: File,
}

impl ScratchDir {
    /// Creates a directory in the system's directory for temporary files.
    pub fn make(prefix: &str) -> Result<Self> {
        remove_left_over(prefix);
        let directory =
            tempfile::Builder::new().prefix(prefix).tempdir().context("a temporary directory can't be created")?.keep();
        let lock = File::create(directory.join("lock.new"))?;
        lock.lock()?;
        // The lock file gets its final name only after this run has locked the file. So no other run finds the file
        // unlocked while this run lives.
        std::fs::rename(directory.join("lock.new"), directory.join("lock"))?;
        Ok(Self { directory, _lock: lock })
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Removes directories of ended runs. Keeps a directory without a lock file, because another run may be creating the lock
/// file now.
fn remove_left_over(prefix: &str) {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
