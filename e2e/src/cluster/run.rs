//! One run of a test cluster: its ID, its directory, and the process that removes everything when the run ends or is
//! killed.
//!
//! [`crate::cluster::Cluster`] creates the run. The run's cgroups have names of the form `bob-ID-…`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::control_plane::ScratchDir;

/// The name of every run's directory begins with this prefix.
const PREFIX: &str = "bobbin-cluster-";
/// The script that removes the processes, cgroups and directory of a run.
const CLEAN: &str = include_str!("run/clean.sh");

/// A run of a test cluster. When this process drops the run, ends or is killed, the clean-up process removes
/// everything.
#[derive(Debug)]
pub struct Run {
    id: String,
    scratch: ScratchDir,
    keeper: Child,
}

impl Run {
    /// Removes the remains of earlier runs that ended without a clean-up, and then begins a new run.
    pub fn begin() -> Result<Self> {
        clean_stale()?;
        let scratch = ScratchDir::make(PREFIX)?;
        let name = scratch.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = name.trim_start_matches(PREFIX).to_owned();
        let keeper = Command::new("setsid")
            .args(["bash", "-c", &format!("cat >/dev/null\n{CLEAN}"), "bob-keeper", &id])
            .arg(scratch.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the clean-up process of the run did not start: install util-linux (for setsid) and bash")?;
        Ok(Self { id, scratch, keeper })
    }

    /// The run's ID: a few letters and digits, unique on this machine.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run's directory.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Creates a directory in the run's directory if it does not exist yet.
    pub fn make_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("{} can't be created", path.display()))?;
        Ok(path)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Ignore a failed wait for the clean-up process, because the next run also cleans up.
        let _ = self.keeper.wait();
    }
}

/// Removes the remains of ended runs. A living run holds the lock in its directory.
fn clean_stale() -> Result<()> {
    let mut ids: Vec<String> = names_in(&std::env::temp_dir())
        .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .chain(cgroup_roots().iter().flat_map(|root| names_in(root)).filter_map(|name| id_of(&name)))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let directory = std::env::temp_dir().join(format!("{PREFIX}{id}"));
        if lives(&directory) {
            continue;
        }
        Command::new("bash")
            .args(["-c", CLEAN, "bob-cleaner", &id])
            .arg(&directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .status()
            .context("bash did not start, so the remains of earlier runs can't be removed: install bash")?;
    }
    Ok(())
}

/// Whether the run that owns a directory is still alive. A living run holds its lock, or is creating the lock file.
fn lives(directory: &Path) -> bool {
    match std::fs::File::open(directory.join("lock")) {
        Ok(lock) => lock.try_lock().is_err(),
        Err(_) => directory.join("lock.new").exists(),
    }
}

/// Returns the run's ID if the name has the form `bob-ID-…`.
fn id_of(name: &str) -> Option<String> {
    name.strip_prefix("bob-")?.split_once('-').map(|(id, _)| id.to_owned())
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The cgroup roots that a test cluster uses: every controller of cgroup v1, or the single root of v2.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    names_in(root).map(|name| root.join(name)).filter(|path| path.join("cgroup.procs").exists()).collect()
}
