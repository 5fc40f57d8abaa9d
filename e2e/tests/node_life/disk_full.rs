//! The file systems of the CNI directories are full.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::SingleNode;
use bobbin_e2e::wait::{check, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{CONVERGENCE_TIMEOUT, add_at_once, end, options};

/// Fills the file system of a directory until this value is dropped.
struct Filler(PathBuf);

impl Filler {
    /// Limits the tmpfs at `directory` to `size`, and fills it.
    fn fill(directory: &Path, size: &str) -> Result<Self> {
        let data = format!("size={size}");
        mount(None::<&str>, directory, None::<&str>, MsFlags::MS_REMOUNT, Some(data.as_str()))?;
        let filler = Self(directory.join("filler"));
        let mut file = std::fs::File::create(&filler.0)?;
        while file.write_all(&[0; 1024]).is_ok() {}
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A small file system at a directory, until this value is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Result<Self> {
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=16k"))?;
        Ok(Self(path))
    }

    fn grow(&self) -> Result<()> {
        Ok(mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some("size=16m"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

pub async fn cni_dirs(_shared: &mut SingleNode) -> Result<()> {
    let mut node = SingleNode::start(options()).await?;
    node.apply_pool("default", json!({"subnets": [{"ipv4": "10.64.0.0/16", "ipv6": "fd00:64::/112"}]})).await?;
    let disks = [SmallDisk::mount(node.path("cni-bin"))?, SmallDisk::mount(node.path("cni-conf"))?];
    let filler = Filler::fill(&node.path("cni-conf"), "16k")?;
    node.start_agent().await?;
    let (plugin, conflist) = (node.path("cni-bin/bobbin"), node.path("cni-conf/10-bobbin.conflist"));
    wait_until("an event says that the plugin could not be installed", CONVERGENCE_TIMEOUT, || async {
        let warnings = node.warnings("InstallFailed").await?;
        Ok(check(warnings.iter().any(|text| text.contains("No space left on device")), || format!("{warnings:?}")))
    })
    .await?;
    ensure!(!conflist.exists() && !plugin.exists(), "a part of the plugin or of its configuration is installed");
    drop(filler);
    for disk in &disks {
        disk.grow()?;
    }
    wait_until("plugin and configuration are installed", CONVERGENCE_TIMEOUT, || async {
        let seen = (std::fs::read(&plugin).ok() == std::fs::read(node.artifacts.shim()).ok(), conflist.is_file());
        Ok(check(seen == (true, true), || format!("plugin, configuration: {seen:?}")))
    })
    .await?;
    let pods = add_at_once(&node, 1)?;
    end(&node, pods).await
}
