//! Snapshots of etcd, saved and restored with the commands of docs/backup-and-restore.md.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use super::{ControlPlane, killed_with_parent, spawn};

/// By how much a restore raises etcd's revision. This number is larger than the number of writes since any snapshot.
const BUMP_REVISION: u64 = 1_000_000_000;

/// The resourceVersions of a restored API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// The resourceVersions continue from those of the snapshot. Clients may know higher resourceVersions from the time
    /// before the restore.
    OfSnapshot,
    /// The resourceVersions are higher than all resourceVersions that clients know (`--bump-revision`, `--mark-compacted`).
    Raised,
}

impl ControlPlane {
    /// Saves a snapshot of the running etcd, and returns its path.
    pub fn save_snapshot(&self) -> Result<PathBuf> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
        let path = self.scratch.path().join(format!("snapshot-{now}.db"));
        let endpoint = format!("--endpoints={}", self.etcd_url);
        self.run_etcd_tool("etcdctl", &[&endpoint, "snapshot", "save", &path.display().to_string()])?;
        Ok(path)
    }

    /// Kills the API server and etcd. The data of etcd stays.
    pub fn stop(&mut self) {
        self.stop_apiserver();
        self.etcd = None;
    }

    /// Replaces etcd's data by a snapshot, starts etcd and the API server, and waits until the API server is ready. Call
    /// [`Self::stop`] first, because this method fails if etcd or the API server is running.
    pub async fn start_restored(&mut self, snapshot: &Path, revision: Revision) -> Result<()> {
        ensure!(self.etcd.is_none() && self.apiserver.is_none(), "a control plane must be stopped before its restore");
        std::fs::remove_dir_all(self.etcd_data())?;
        let (snapshot, data) = (snapshot.display().to_string(), format!("--data-dir={}", self.etcd_data().display()));
        let cluster = format!("--initial-cluster=default={}", self.etcd_peer_url);
        let peer = format!("--initial-advertise-peer-urls={}", self.etcd_peer_url);
        let mut arguments = vec!["snapshot", "restore", &snapshot, &data, "--name=default", &cluster, &peer];
        let bump = format!("--bump-revision={BUMP_REVISION}");
        if revision == Revision::Raised {
            arguments.extend([&*bump, "--mark-compacted"]);
        }
        self.run_etcd_tool("etcdutl", &arguments)?;
        self.start_etcd()?;
        self.start_apiserver().await
    }

    fn run_etcd_tool(&self, tool: &str, arguments: &[&str]) -> Result<()> {
        let mut command = killed_with_parent(&self.programs.path(tool)?, self.options.netns.as_deref());
        command.args(arguments).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let output = spawn(command)?.wait_with_output().with_context(|| format!("{tool} did not start"))?;
        let says = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the command `{tool} {}` failed: {}", arguments.join(" "), says.trim());
        Ok(())
    }
}
