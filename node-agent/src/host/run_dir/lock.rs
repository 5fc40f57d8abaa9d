//! The lock file of the run directory. The agent holds an exclusive `flock(2)` on this file. The kernel releases the lock whenever the
//! agent's process ends.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The process that has the lock, according to the lock file. Only messages contain this data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The holder's process ID, in the holder's own PID namespace.
    pid: Option<u32>,
    /// The holder's pod.
    pod: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.pod, self.pid) {
            (Some(pod), Some(pid)) => write!(out, "pod {pod}, process {pid}"),
            (Some(pod), None) => write!(out, "pod {pod}"),
            (None, Some(pid)) => write!(out, "process {pid}"),
            (None, None) => out.write_str("of unknown name"),
        }
    }
}

/// The lock of the run directory. Dropping this value releases the lock.
#[derive(Debug)]
pub(super) struct Lock(File);

/// The result of an attempt to take the lock.
#[derive(Debug)]
pub(super) enum Tried {
    Locked(Lock),
    Held(Holder),
}

impl Lock {
    /// Takes the lock if no other process has it.
    ///
    /// If another program replaces the lock file after this method has opened it, the lock counts as held. The next attempt opens the new
    /// file.
    pub(super) fn try_take(path: &Path, pod_name: Option<&str>) -> io::Result<Tried> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Tried::Held(holder(&mut file))),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut lock = Lock(file);
        if !lock.is_at(path)? {
            return Ok(Tried::Held(Holder::default()));
        }
        let holder = Holder { pid: Some(std::process::id()), pod: pod_name.map(str::to_owned) };
        lock.0.set_len(0)?;
        lock.0.write_all(&serde_json::to_vec(&holder)?)?;
        Ok(Tried::Locked(lock))
    }

    /// Whether the locked file is still the file at `path`.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let locked = self.0.metadata()?;
        match std::fs::metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (locked.dev(), locked.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Reads the holder from the lock file. The result is empty if the holder has not written its data yet.
fn holder(file: &mut File) -> Holder {
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| file.take(4096).read_to_end(&mut bytes));
    read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
