//! Puts the plugin and the CNI configuration on the node, the configuration last and only when the agent can serve. Called by run;
//! leave takes both away again. Files of others are left alone.

mod conflist;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bobbin_cni_wire::Version;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::args::Args;
use crate::atomic_file;
pub use conflist::ChainedError;
use conflist::{chained, render, supported, version_for};

/// The plugin's name in the runtime's directory.
pub const PLUGIN: &str = "bobbin";
/// The configuration's name in the runtime's directory.
pub const CONFLIST: &str = "10-bobbin.conflist";
/// How long a chained plugin may take to say which versions it knows.
const VERSION_DEADLINE: Duration = Duration::from_secs(5);

/// Why something could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file could not be written.
    #[error("can't install {path}: {source}; see whether the directory is mounted writable into the agent's container")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The setting makes no sense.
    #[error(transparent)]
    Chained(#[from] ChainedError),
}

/// Copies the shim to where the runtime looks for plugins; a call meets the old one or the new one, whole. The same bytes are not
/// written again.
///
/// # Errors
/// The copy could not be made.
pub fn install_shim(args: &Args) -> Result<(), InstallError> {
    let path = args.cni_bin_dir.join(PLUGIN);
    let bytes =
        std::fs::read(&args.shim_path).map_err(|source| InstallError::File { path: args.shim_path.clone(), source })?;
    put(&path, &bytes, 0o755).map_err(|source| InstallError::File { path, source })
}

/// Writes the configuration: from now on the runtime calls us. Call when the agent can serve.
///
/// # Errors
/// The chained plugins can't be read, or the file not be written.
pub async fn install_conflist(args: &Args) -> Result<(), InstallError> {
    let plugins = chained(&args.chained)?;
    let mut known = Vec::new();
    for plugin in &plugins {
        known.push(versions_of(&args.cni_bin_dir, plugin).await);
    }
    let version = version_for(&args.cni_version, &known)?;
    if Version::parse(&args.cni_version).is_some_and(|wanted| wanted > version) {
        tracing::warn!(
            wanted = args.cni_version,
            written = version.text(),
            "a chained plugin does not know the CNI version wanted; the configuration names an older one"
        );
    }
    let path = args.cni_conf_dir.join(CONFLIST);
    put(&path, &render(version, &plugins), 0o644).map_err(|source| InstallError::File { path, source })
}

/// Configurations that sort before ours: the runtime takes the first, so that ours is not used. A sentence for each.
pub fn competitors(args: &Args) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(&args.cni_conf_dir) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
    let mut first: Vec<OsString> = names.filter(|name| conflist::comes_first(name)).collect();
    first.sort();
    let directory = args.cni_conf_dir.display();
    let sentence = |name: OsString| {
        format!(
            "CNI configuration {directory}/{} sorts before {CONFLIST}, so that the runtime of node {} uses it and not Bobbin; remove it if Bobbin is to give the pods their addresses",
            name.to_string_lossy(),
            args.node_name
        )
    };
    first.into_iter().map(sentence).collect()
}

/// Takes the configuration away: the runtime calls us no more for new pods. True: there was one.
///
/// # Errors
/// It could not be removed.
pub fn remove_conflist(args: &Args) -> Result<bool, InstallError> {
    remove(&args.cni_conf_dir.join(CONFLIST))
}

/// Takes the shim away. True: there was one.
///
/// # Errors
/// It could not be removed.
pub fn remove_shim(args: &Args) -> Result<bool, InstallError> {
    remove(&args.cni_bin_dir.join(PLUGIN))
}

fn remove(path: &Path) -> Result<bool, InstallError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(InstallError::File { path: path.to_owned(), source }),
    }
}

/// Writes a file unless it is there with these bytes and this mode.
fn put(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let current = std::fs::metadata(path).is_ok_and(|seen| seen.permissions().mode() & 0o777 == mode);
    if current && std::fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    atomic_file::replace_durably(path, bytes, mode)
}

/// The versions that a plugin says it supports; none if it does not answer.
async fn versions_of(bin_dir: &Path, plugin: &Value) -> Vec<Version> {
    let name = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
    let asked = tokio::time::timeout(VERSION_DEADLINE, ask_version(&bin_dir.join(name))).await;
    match asked {
        Ok(Ok(answer)) => supported(&answer),
        Ok(Err(error)) => {
            tracing::warn!(plugin = name, %error, "a chained plugin does not say which CNI versions it supports; the oldest is assumed");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(
                plugin = name,
                "a chained plugin did not say in time which CNI versions it supports; the oldest is assumed"
            );
            Vec::new()
        }
    }
}

async fn ask_version(executable: &Path) -> std::io::Result<Vec<u8>> {
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

#[cfg(test)]
mod tests;
