//! Moves the checkpoint of another node into a quarantine directory under the run directory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::state::layout::{HEALTH_SOCKET, IDENTITY, LOCK, OTHER_NODE_PREFIX, SOCKET};

/// How many bytes of the node's name go into the name of the quarantine directory. NAME_MAX is 255.
const MAX_NODE_NAME_BYTES: usize = 200;

/// The entries of the run directory that belong to the checkpoint: all but the lock, the sockets and the quarantine directories.
pub(super) fn content(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut content = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !stays(&entry.file_name()) {
            content.push(entry.path());
        }
    }
    Ok(content)
}

fn stays(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    [LOCK, SOCKET, HEALTH_SOCKET].contains(&name.as_ref()) || name.starts_with(OTHER_NODE_PREFIX)
}

/// Moves the checkpoint, the identity last. If the agent crashes meanwhile, the next agent finds the identity and moves the rest into
/// another directory.
pub(super) fn quarantine(root: &Path, node: &str) -> io::Result<PathBuf> {
    let target = make_directory(root, node)?;
    let mut content = content(root)?;
    content.sort_by_key(|path| path.file_name() == Some(OsStr::new(IDENTITY)));
    for path in content {
        if let Some(name) = path.file_name() {
            fs::rename(&path, target.join(name))?;
        }
    }
    Ok(target)
}

fn make_directory(root: &Path, node: &str) -> io::Result<PathBuf> {
    // The node's name comes from a file, so it may contain any characters.
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    let node: String = node.chars().filter(plain).take(MAX_NODE_NAME_BYTES).collect();
    let mut number = 1_u32;
    loop {
        let target = root.join(format!("{OTHER_NODE_PREFIX}{node}-{number}"));
        match fs::create_dir(&target) {
            Ok(()) => return Ok(target),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}
