//! Tests full file systems, both of the run directory and of the CNI directories.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, SingleNode};
use bobbin_e2e::wait::{check, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{add_at_once, options};

/// A file that fills the file system of a directory. Dropping the value removes the file.
struct Filler(PathBuf);

impl Filler {
    /// Limits the tmpfs at `directory` to `size`, and fills the tmpfs.
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

pub async fn run_dir(node: &mut SingleNode) -> Result<()> {
    let mut pods = add_at_once(node, 3)?;
    node.await_assignments_of(&pods).await?;
    let filler = Filler::fill(&node.run_dir(), "2m")?;
    let refused = node.sandbox()?;
    let error = node.call(&refused.call("ADD"))?.error().context("an ADD succeeded on a full disk")?;
    ensure!(
        error.text.contains("No space left on device"),
        "the error of the ADD does not name the full disk: {}",
        error.text
    );
    let links = node.attachments()?;
    ensure!(links.len() == 3 && refused.addresses()?.is_empty(), "the failed ADD left a link: {links:?}");
    node.del(&refused).context("the DEL after a failed ADD failed")?;
    let deleted = pods.remove(0);
    node.del(&deleted).context("a DEL failed on a full disk")?;
    ensure!(node.attachments()?.len() == 2, "the DEL left a link behind");
    // Like a runtime, remove the network namespace after the DEL. The agent can't save on the full disk that the
    // address is free. So after a restart, only the missing namespace proves that the address is free.
    drop(deleted);
    node.await_assignments_of(&pods).await?;
    // Start the agent while the disk is full. The agent must keep every address.
    node.kill_agent();
    node.start_agent_only()?;
    drop(filler);
    node.await_agent(CONVERGENCE_TIMEOUT).await?;
    pods.extend(add_at_once(node, 3)?);
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    node.await_assignments_of(&pods).await?;
    node.remove_pods(pods).await
}

/// A small file system that is mounted at a directory. Dropping the value unmounts it.
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
    wait_until("an event says that the agent could not install the plugin", CONVERGENCE_TIMEOUT, || async {
        let warnings = node.warnings("InstallFailed").await?;
        Ok(check(warnings.iter().any(|text| text.contains("No space left on device")), || format!("{warnings:?}")))
    })
    .await?;
    ensure!(!conflist.exists() && !plugin.exists(), "the agent installed a part of the plugin or of its configuration");
    drop(filler);
    for disk in &disks {
        disk.grow()?;
    }
    wait_until("the agent has installed the plugin and its configuration", CONVERGENCE_TIMEOUT, || async {
        let seen = (std::fs::read(&plugin).ok() == std::fs::read(node.artifacts.shim()).ok(), conflist.is_file());
        Ok(check(seen == (true, true), || format!("the plugin and the configuration are complete: {seen:?}")))
    })
    .await?;
    let pods = add_at_once(&node, 1)?;
    node.remove_pods(pods).await
}
