//! Moves the checkpoint of another node into a quarantine directory under the run directory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::state::layout::{HEALTH_SOCKET, IDENTITY, LOCK, OTHER_NODE_PREFIX, SOCKET};

/// The largest number of bytes that the quarantine directory's name takes from the node's name. Linux limits a file name to 255 bytes
/// (NAME_MAX).
const MAX_NODE_NAME_BYTES: usize = 200;

/// The entries of the run directory that belong to the checkpoint. These are all entries except the lock file, the sockets and the
/// quarantine directories.
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

/// Moves the files of the checkpoint, and the identity file last. If the agent crashes during the move, the next agent still finds the
/// identity file and moves the remaining files into another directory.
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
    // Drop special characters, because the node's name comes from a file and may contain any characters.
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
