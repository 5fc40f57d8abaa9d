//! Asks each chained plugin for its supported CNI versions. Asks a plugin again if the plugin's file changes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bobbin_cni_wire::Version;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::problem::InstallProblem;
use crate::host::conflist::supported;

/// How long a chained plugin may take to answer a VERSION call.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// The supported CNI versions of each chained plugin, and the stamp of the plugin's file when the agent asked the plugin.
#[derive(Debug, Default)]
pub(super) struct PluginVersions(HashMap<PathBuf, (Stamp, Vec<Version>)>);

/// A value that changes whenever a file changes: the file's device, inode, size, and change time in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl PluginVersions {
    /// Returns the supported CNI versions of a plugin. If the plugin can't be run or does not answer in time, returns an empty list and a
    /// problem. If Bobbin supports none of the versions in the plugin's answer, returns an empty list without a problem.
    pub(super) async fn of(&mut self, bin_dir: &Path, plugin: &Value) -> (Vec<Version>, Option<InstallProblem>) {
        let path = bin_dir.join(plugin.get("type").and_then(Value::as_str).unwrap_or_default());
        let stamp = match stamp(&path) {
            Ok(stamp) => stamp,
            Err(error) => return (Vec::new(), Some(InstallProblem::versions_unknown(&path, &error.to_string()))),
        };
        if let Some((_, versions)) = self.0.get(&path).filter(|(known, _)| *known == stamp) {
            return (versions.clone(), None);
        }
        match tokio::time::timeout(VERSION_TIMEOUT, ask(&path)).await {
            Ok(Ok(answer)) => {
                let versions = supported(&answer);
                self.0.insert(path, (stamp, versions.clone()));
                (versions, None)
            }
            Ok(Err(error)) => (Vec::new(), Some(InstallProblem::versions_unknown(&path, &error.to_string()))),
            Err(_) => (
                Vec::new(),
                Some(InstallProblem::versions_unknown(
                    &path,
                    &format!("the plugin did not answer within {VERSION_TIMEOUT:?}"),
                )),
            ),
        }
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let seen = std::fs::metadata(path)?;
    Ok((seen.dev(), seen.ino(), seen.size(), seen.ctime(), seen.ctime_nsec()))
}

async fn ask(executable: &Path) -> std::io::Result<Vec<u8>> {
    let mut child = tokio::process::Command::new(executable)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(format!("{{\"cniVersion\":\"{}\"}}", Version::LATEST.text()).as_bytes()).await?;
    }
    Ok(child.wait_with_output().await?.stdout)
}
