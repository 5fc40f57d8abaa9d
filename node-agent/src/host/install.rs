//! Keeps the CNI plugin and the CNI configuration installed.
//!
//! The agent installs the plugin first. It installs the configuration only after the agent is ready, and only while the plugin exists. The
//! agent does not touch the files of other programs.

mod change_pause;
mod directory_watch;
mod problem;
mod task;
mod versions;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use super::conflist::ChainedError;
use super::conflist::{chained, delegates_to_bobbin, render, sorts_before_ours, version_for};
use crate::args::Args;
use crate::state::atomic_file;
use problem::InstallProblem;
pub use task::run;
use versions::PluginVersions;

/// The name of the plugin's file in the runtime's directory.
pub const PLUGIN: &str = "bobbin";
/// The name of the configuration file in the runtime's directory.
pub const CONFLIST: &str = "10-bobbin.conflist";
/// The agent reports at most this many of the configuration files that sort before Bobbin's file.
const MAX_SHADOWING: usize = 5;

/// The reason why the agent could not install or remove a file.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The agent can't read the plugin from its image.
    #[error("the agent can't install the CNI plugin, because it can't read {path}: {source}. As a result, {}. Check --shim-path", config_effect(*.kept))]
    Source {
        /// The path of the plugin's executable in the image.
        path: PathBuf,
        /// The error of the read.
        source: std::io::Error,
        /// Whether the CNI configuration stays on the node. It stays only if an older plugin is installed.
        kept: bool,
    },
    /// The agent could not write the plugin.
    #[error(
        "the agent can't install the CNI plugin {path}: {source}. As a result, {}. {}",
        config_effect(*.kept),
        remedy(.source)
    )]
    Plugin {
        /// The path of the plugin on the node.
        path: PathBuf,
        /// The error of the write.
        source: std::io::Error,
        /// Whether the CNI configuration stays on the node. It stays only if an older plugin is installed.
        kept: bool,
    },
    /// The agent could not write a file.
    #[error("the agent can't install {path}: {source}. {}", remedy(.source))]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the write.
        source: std::io::Error,
    },
    /// The agent could not remove a file.
    #[error("the agent can't remove {path}: {source}. Remove the file on the node")]
    Remove {
        /// The path of the file.
        path: PathBuf,
        /// The error of the removal.
        source: std::io::Error,
    },
    /// A setting of the CNI configuration is invalid.
    #[error(transparent)]
    Chained(#[from] ChainedError),
}

fn config_effect(kept: bool) -> &'static str {
    if kept {
        "the installed older plugin stays in use"
    } else {
        "the agent installs no CNI configuration without the plugin, so no new pod can start on the node"
    }
}

/// What an administrator can do about a failed write of a file.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::IsADirectory => "Remove this directory on the node, because Bobbin needs a file in its place",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "Free space on the node's disk",
        _ => "Check that the directory of the file is mounted writable into the agent's container",
    }
}

/// The changes that one pass of the installer made, and the problems that it found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InstallReport {
    /// Files that did not exist before.
    new: Vec<PathBuf>,
    /// Files that another program removed or changed since an earlier pass.
    restored: Vec<PathBuf>,
    /// Problems that an administrator should know.
    problems: Vec<InstallProblem>,
}

/// Installs the plugin and the configuration, and remembers the files that it installed.
pub(crate) struct Installer {
    args: Args,
    versions: PluginVersions,
    plugin_seen: bool,
    conflist_seen: Option<Vec<u8>>,
}

impl Installer {
    /// Creates the installer for the directories in these settings.
    pub(crate) fn new(args: Args) -> Installer {
        for directory in [&args.cni_bin_dir, &args.cni_conf_dir] {
            // Ignore errors here: the first pass reports a directory that the agent can't read.
            let _ = atomic_file::tidy(directory);
        }
        Installer { args, versions: PluginVersions::default(), plugin_seen: false, conflist_seen: None }
    }

    /// Installs the plugin. Also installs the configuration if the agent is ready (`serves` is true). Writes only files that are missing or
    /// that differ.
    pub(crate) async fn reconcile(&mut self, serves: bool) -> InstallReport {
        let mut done = InstallReport { problems: shadowing_configs(&self.args), ..InstallReport::default() };
        let result = match self.install_plugin(&mut done) {
            Ok(()) if serves => self.install_conflist(&mut done).await,
            other => other,
        };
        if let Err(error) = result {
            done.problems.push(InstallProblem::install_failed(&error));
        }
        done
    }

    /// Installs the plugin's executable atomically.
    ///
    /// If the installation fails, an older plugin stays in use. If there is no older plugin, removes the configuration, so that the runtime
    /// does not call a missing plugin.
    fn install_plugin(&mut self, done: &mut InstallReport) -> Result<(), InstallError> {
        let path = self.args.cni_bin_dir.join(PLUGIN);
        match self.write_plugin(&path) {
            Ok(written) => {
                done.note(path, written, self.plugin_seen);
                self.plugin_seen = true;
                Ok(())
            }
            Err(error) => {
                if !is_executable(&path) && remove_conflist(&self.args)? {
                    tracing::warn!(
                        "the agent removed the CNI configuration, because the CNI plugin {} does not exist",
                        path.display()
                    );
                    self.conflist_seen = None;
                }
                Err(error)
            }
        }
    }

    fn write_plugin(&self, path: &Path) -> Result<bool, InstallError> {
        let kept = is_executable(path);
        let bytes = std::fs::read(&self.args.shim_path).map_err(|source| InstallError::Source {
            path: self.args.shim_path.clone(),
            source,
            kept,
        })?;
        write_if_changed(path, &bytes, 0o755).map_err(|source| InstallError::Plugin {
            path: path.to_owned(),
            source,
            kept,
        })
    }

    async fn install_conflist(&mut self, done: &mut InstallReport) -> Result<(), InstallError> {
        let plugins = chained(&self.args.chained)?;
        let mut known = Vec::new();
        for plugin in &plugins {
            let (versions, problem) = self.versions.of(&self.args.cni_bin_dir, plugin).await;
            known.push(versions);
            done.problems.extend(problem);
        }
        let version = version_for(&self.args.cni_version, &known)?;
        done.problems.extend(InstallProblem::version_lowered(&self.args.cni_version, version));
        let path = self.args.cni_conf_dir.join(CONFLIST);
        let bytes = render(version, &plugins);
        let written = write_if_changed(&path, &bytes, 0o644)
            .map_err(|source| InstallError::File { path: path.clone(), source })?;
        done.note(path, written, self.conflist_seen.as_ref() == Some(&bytes));
        self.conflist_seen = Some(bytes);
        Ok(())
    }
}

impl InstallReport {
    /// Whether the pass failed to install a file. A failed pass may itself have changed the directories, and such a change must not start
    /// another pass at once.
    fn failed(&self) -> bool {
        self.problems.iter().any(InstallProblem::is_failure)
    }

    fn note(&mut self, path: PathBuf, written: bool, seen: bool) {
        match (written, seen) {
            (false, _) => {}
            (true, true) => self.restored.push(path),
            (true, false) => self.new.push(path),
        }
    }
}

/// The problems with configuration files that sort before Bobbin's file. A runtime uses only the first file. Containerd does so even if
/// that file is invalid.
fn shadowing_configs(args: &Args) -> Vec<InstallProblem> {
    let Ok(entries) = std::fs::read_dir(&args.cni_conf_dir) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
    let mut first: Vec<PathBuf> =
        names.filter(|name| sorts_before_ours(name)).map(|name| args.cni_conf_dir.join(name)).collect();
    // Container runtimes skip directories, but not symbolic links to directories.
    first.retain(|path| !path.symlink_metadata().is_ok_and(|seen| seen.is_dir()));
    first.sort();
    let problem = |path: &PathBuf| {
        let config: Option<serde_json::Value> =
            std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match config {
            Some(config) if delegates_to_bobbin(&config) => None,
            Some(_) => Some(InstallProblem::shadowed_by(path, &args.node_name)),
            None => Some(InstallProblem::invalid_before_ours(path, &args.node_name)),
        }
    };
    first.iter().filter_map(problem).take(MAX_SHADOWING).collect()
}

/// Removes the configuration, so that the runtime does not call Bobbin for new pods. Returns true if the configuration existed.
///
/// # Errors
/// If the agent could not remove the file.
pub fn remove_conflist(args: &Args) -> Result<bool, InstallError> {
    remove(&args.cni_conf_dir.join(CONFLIST))
}

/// Removes the plugin. Returns true if the plugin existed.
///
/// # Errors
/// If the agent could not remove the file.
pub fn remove_shim(args: &Args) -> Result<bool, InstallError> {
    remove(&args.cni_bin_dir.join(PLUGIN))
}

fn remove(path: &Path) -> Result<bool, InstallError> {
    atomic_file::remove(path).map_err(|source| InstallError::Remove { path: path.to_owned(), source })
}

/// Writes a file if its content or its mode differs. Returns true if the file was written.
fn write_if_changed(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<bool> {
    let is_current = std::fs::symlink_metadata(path).is_ok_and(|seen| {
        seen.is_file() && seen.permissions().mode() & 0o777 == mode && seen.len() == bytes.len() as u64
    });
    if is_current && std::fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    atomic_file::replace_durably(path, bytes, mode).map(|()| true)
}

/// Whether a runtime can execute the file.
fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|seen| seen.is_file() && seen.len() > 0 && seen.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
