//! The run directory (`--run-dir`), which only one agent uses at a time. This module owns the lock, the identity file and the names of the
//! sockets.

pub mod heartbeat;
mod identity;
mod lock;
mod quarantine;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

pub use identity::{Identity, Previous};
pub use lock::Holder;

use crate::state::atomic_file;
use crate::state::layout::{HEALTH_SOCKET, IDENTITY, LOCK, READY_MARKER, SOCKET};
use lock::{Lock, Tried};

/// How often a waiting agent tries to get the lock of the run directory.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How often an agent that waits for the lock logs that it is still waiting.
const REMINDER_INTERVAL: Duration = Duration::from_mins(1);

/// The reason why the agent can't use the run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The directory can't be read or written.
    #[error(
        "the agent can't use the run directory {}, because {} could not be {what}: {source}. Mount the directory writable into the agent's container, or set another directory with --run-dir",
        directory.display(), path.display()
    )]
    Unusable {
        /// The path of the run directory.
        directory: PathBuf,
        /// The file or directory that the agent could not use.
        path: PathBuf,
        /// The failed action on `path`, as a participle such as "read".
        what: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// Another program removed the lock file while this agent was running, and another agent has locked a new lock file.
    #[error(
        "another agent ({holder}) locked the run directory {} after another program had removed the lock file. This agent exits, and waits for the lock after its restart",
        directory.display()
    )]
    TakenOver {
        /// The path of the run directory.
        directory: PathBuf,
        /// The agent that holds the new lock.
        holder: Holder,
    },
    /// The directory was removed on the host while it was mounted into the agent's container. The agent can no longer write files there.
    #[error(
        "the run directory {} was removed on the host while this agent was running. This agent exits, and the next agent gets a new directory",
        directory.display()
    )]
    Removed {
        /// The path of the run directory.
        directory: PathBuf,
    },
}

/// The locked run directory. The agent releases the lock when this value is dropped or when the process ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    pod_name: Option<String>,
    lock: Mutex<Lock>,
    /// True after an uninstall. The agent then writes neither the identity file nor the ready marker. The agent holds the mutex while it
    /// writes either file.
    closed: Mutex<bool>,
    /// Whether the agent has been ready at some time since boot.
    ready: AtomicBool,
}

impl RunDir {
    /// Locks the directory. Waits while another agent has the lock, and logs at once and every minute that it is waiting. Then checks which
    /// node the checkpoint belongs to.
    ///
    /// The caller must [save](RunDir::save) its identity before it writes any other file. Another agent that waits for the lock logs
    /// `pod_name` as the holder.
    ///
    /// # Errors
    /// If the directory can't be created, read or written.
    pub async fn lock(path: &Path, node_name: &str, pod_name: Option<&str>) -> Result<(RunDir, Previous), RunDirError> {
        fs::create_dir_all(path).map_err(|source| unusable(path, path, "created", source))?;
        let lock = wait_for_lock(path, pod_name).await?;
        atomic_file::tidy(path).map_err(|source| unusable(path, path, "cleaned up", source))?;
        let run_dir = RunDir {
            path: path.to_owned(),
            pod_name: pod_name.map(str::to_owned),
            lock: Mutex::new(lock),
            closed: Mutex::default(),
            ready: AtomicBool::default(),
        };
        let previous = run_dir.previous(node_name)?;
        Ok((run_dir, previous))
    }

    /// The path of the run directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the socket that the CNI plugin calls.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// The path of the socket that answers probes.
    pub fn health_socket(&self) -> PathBuf {
        self.path.join(HEALTH_SOCKET)
    }

    /// Whether the agent has been ready at some time since boot, for the answer to STATUS. Stays true if another program removes the
    /// ready marker.
    pub fn was_ready(&self) -> bool {
        if self.has_marker() {
            self.ready.store(true, Ordering::Release);
        }
        self.ready.load(Ordering::Acquire)
    }

    /// Creates the ready marker, which shows that the agent has been ready at some time since boot. The plugin reads the marker while no
    /// agent is running.
    ///
    /// # Errors
    /// If the marker can't be written. The agent still counts as ready, and the heartbeat repeats the write.
    pub fn mark_ready(&self) -> Result<(), RunDirError> {
        self.ready.store(true, Ordering::Release);
        self.keep_marker()
    }

    /// Creates the ready marker again if another program removed it.
    fn keep_marker(&self) -> Result<(), RunDirError> {
        let closed = self.closed.lock();
        if *closed || !self.ready.load(Ordering::Acquire) || self.has_marker() {
            return Ok(());
        }
        let path = self.path.join(READY_MARKER);
        atomic_file::replace(&path, b"", 0o644).map_err(|source| unusable(&self.path, &path, "written", source))
    }

    fn has_marker(&self) -> bool {
        self.path.join(READY_MARKER).exists()
    }

    /// Saves the identity atomically. Does nothing after a call of [`RunDir::forget`].
    ///
    /// # Errors
    /// If the identity can't be written. The old file then stays.
    pub fn save(&self, identity: &Identity) -> Result<(), RunDirError> {
        let closed = self.closed.lock();
        if *closed {
            return Ok(());
        }
        let path = self.path.join(IDENTITY);
        let bytes = serde_json::to_vec(identity).map_err(io::Error::from);
        bytes
            .and_then(|bytes| atomic_file::replace(&path, &bytes, 0o600))
            .map_err(|source| unusable(&self.path, &path, "written", source))
    }

    /// Removes the identity and the ready marker after an uninstall. The agent does not create them again.
    ///
    /// # Errors
    /// If the identity or the marker can't be removed.
    pub fn forget(&self) -> Result<(), RunDirError> {
        let mut closed = self.closed.lock();
        *closed = true;
        for name in [READY_MARKER, IDENTITY] {
            let path = self.path.join(name);
            atomic_file::remove(&path).map_err(|source| unusable(&self.path, &path, "removed", source))?;
        }
        Ok(())
    }

    /// Checks that the locked file is still the directory's lock file. If another program removed the lock file, creates and locks a new
    /// lock file and returns true.
    ///
    /// # Errors
    /// If another agent has the lock or the directory is gone: this agent must then exit. Also if the agent can't write to the directory.
    pub fn keep_lock(&self) -> Result<bool, RunDirError> {
        if fs::metadata(&self.path).is_ok_and(|directory| directory.nlink() == 0) {
            return Err(RunDirError::Removed { directory: self.path.clone() });
        }
        let path = self.path.join(LOCK);
        let failed = |source| unusable(&self.path, &path, "locked", source);
        let mut lock = self.lock.lock();
        if lock.is_at(&path).map_err(failed)? {
            return Ok(false);
        }
        fs::create_dir_all(&self.path).map_err(failed)?;
        match Lock::try_take(&path, self.pod_name.as_deref()).map_err(failed)? {
            Tried::Locked(new) => {
                *lock = new;
                Ok(true)
            }
            Tried::Held(holder) => Err(RunDirError::TakenOver { directory: self.path.clone(), holder }),
        }
    }

    fn previous(&self, node_name: &str) -> Result<Previous, RunDirError> {
        let path = self.path.join(IDENTITY);
        let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Identity>(&bytes)?));
        match read {
            Ok(identity) if identity.node_name == node_name => Ok(Previous::SameNode(identity)),
            Ok(identity) => self.quarantine(identity.node_name, node_name),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_empty()? => Ok(Previous::Nothing),
            Err(error) => {
                tracing::error!(
                    path = %path.display(), %error,
                    "the run directory has a checkpoint, but the agent can't read the file that names the checkpoint's node. The agent keeps the checkpoint, and the checkpoint's addresses count as in use"
                );
                Ok(Previous::Unknown)
            }
        }
    }

    fn quarantine(&self, name: String, node_name: &str) -> Result<Previous, RunDirError> {
        let moved = quarantine::quarantine(&self.path, &name);
        let quarantine = moved.map_err(|source| unusable(&self.path, &self.path, "cleared", source))?;
        tracing::warn!(
            "the run directory {} has the checkpoint of node {name}, but this agent serves node {node_name}. The agent moved the checkpoint to {} and does not use it. Remove that directory when you no longer need the checkpoint",
            self.path.display(),
            quarantine.display()
        );
        Ok(Previous::OtherNode { name, quarantine })
    }

    fn is_empty(&self) -> Result<bool, RunDirError> {
        let content = quarantine::content(&self.path);
        content.map(|content| content.is_empty()).map_err(|source| unusable(&self.path, &self.path, "read", source))
    }
}

async fn wait_for_lock(directory: &Path, pod_name: Option<&str>) -> Result<Lock, RunDirError> {
    let path = directory.join(LOCK);
    let begun = Instant::now();
    let mut next_reminder = begun;
    loop {
        let tried = Lock::try_take(&path, pod_name).map_err(|source| unusable(directory, &path, "locked", source))?;
        let holder = match tried {
            Tried::Locked(lock) => {
                if next_reminder > begun {
                    tracing::info!(waited = ?begun.elapsed(), "this agent has locked the run directory {}", directory.display());
                }
                return Ok(lock);
            }
            Tried::Held(holder) => holder,
        };
        if Instant::now() >= next_reminder {
            tracing::warn!(
                waited = ?begun.elapsed(),
                "another agent ({holder}) has locked the run directory {}; this agent waits until the other agent exits",
                directory.display()
            );
            next_reminder = Instant::now() + REMINDER_INTERVAL;
        }
        tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
    }
}

fn unusable(directory: &Path, path: &Path, what: &'static str, source: io::Error) -> RunDirError {
    RunDirError::Unusable { directory: directory.to_owned(), path: path.to_owned(), what, source }
}

#[cfg(test)]
mod tests;
