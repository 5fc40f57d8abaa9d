//! Finds the network namespaces of a machine's pods, and reads the addresses inside. Each of these namespaces is
//! mounted or has a process of a pod.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use serde_json::Value;

use super::MachineSource;
use super::kernel::{ALIAS_PREFIX, ip, text};
use crate::invariants::snapshot::Sandbox;
use crate::network::Namespace;

/// An open namespace, and the UID of the pod whose process runs in this namespace.
struct Opened {
    namespace: Namespace,
    pod_uid: Option<String>,
}

pub(super) fn read(source: &MachineSource) -> Result<Vec<Sandbox>> {
    let own = inode(&source.namespace.path())?;
    let mut found: BTreeMap<u64, Opened> = BTreeMap::new();
    for path in mounted(&source.netns_dir)? {
        if let Some((inode, namespace)) = open(&path) {
            found.insert(inode, Opened { namespace, pod_uid: None });
        }
    }
    for (uid, pids) in &source.processes {
        for path in pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net"))) {
            // Skip a namespace that is gone, because a process may end at any time.
            let Some((inode, namespace)) = open(&path) else { continue };
            found.entry(inode).or_insert(Opened { namespace, pod_uid: None }).pod_uid = Some(uid.clone());
        }
    }
    found.remove(&own);
    found.into_iter().map(|(inode, opened)| sandbox(inode, opened)).collect()
}

fn inode(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.ino())
}

fn mounted(directory: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.with_context(|| directory.display().to_string())?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Opens a network namespace. Returns `None` if the file does not exist or is not a network namespace.
fn open(path: &Path) -> Option<(u64, Namespace)> {
    let file = std::fs::File::open(path).ok()?;
    if fstatfs(file.as_fd()).ok()?.filesystem_type() != NSFS_MAGIC {
        return None;
    }
    let inode = file.metadata().ok()?.ino();
    Some((inode, Namespace::from(file)))
}

fn sandbox(inode: u64, opened: Opened) -> Result<Sandbox> {
    let mut sandbox = Sandbox { inode, pod_uid: opened.pod_uid, ..Sandbox::default() };
    // Pass `-d`, because `ip addr show` prints link aliases only with this flag.
    for link in ip(&opened.namespace, &["-d", "addr", "show"])? {
        let name = text(&link, "ifname").to_owned();
        if name == "lo" {
            sandbox.container = text(&link, "ifalias").strip_prefix(ALIAS_PREFIX).map(str::to_owned);
            continue;
        }
        let inside = link.get("addr_info").and_then(Value::as_array).into_iter().flatten();
        let global = inside.filter(|one| text(one, "scope") == "global");
        sandbox.addresses.extend(global.filter_map(|one| Some((name.clone(), text(one, "local").parse().ok()?))));
    }
    Ok(sandbox)
}
