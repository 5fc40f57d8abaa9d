//! The programs of the test cluster: kube-apiserver, etcd, kubelet, containerd and so on.
//!
//! If `BOBBIN_PROGRAMS` is set, all programs come from that directory. Otherwise, a program comes from the directory
//! `KUBEBUILDER_ASSETS` if that directory contains the program. The script `xtask/programs/build` builds all other
//! programs. `PATH` is not searched, because the repository pins the versions of the programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The directories that contain the programs of the test cluster.
#[derive(Debug)]
pub struct Programs {
    given: Option<PathBuf>,
    assets: Option<PathBuf>,
    built: OnceLock<PathBuf>,
}

impl Programs {
    /// Reads the environment variables, but builds no program. If `BOBBIN_PROGRAMS` is not set, [`Programs::path`] builds
    /// missing programs.
    pub fn find() -> Result<Self> {
        let directory = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let given = directory("BOBBIN_PROGRAMS");
        if let Some(path) = given.as_deref().filter(|path| !path.is_dir()) {
            bail!(
                "BOBBIN_PROGRAMS names {}, which is not a directory: create the directory, or unset the variable",
                path.display()
            );
        }
        Ok(Self { given, assets: directory("KUBEBUILDER_ASSETS"), built: OnceLock::new() })
    }

    /// The path of one program of the test cluster.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        if let Some(path) =
            self.given.is_none().then(|| self.assets.as_deref()?.join(name).canonicalize().ok()).flatten()
        {
            return Ok(path);
        }
        let directory = self.directory()?;
        let path = directory.join(name);
        if !path.is_file() {
            let what_to_do = match &self.given {
                Some(_) => "put the program there, or unset BOBBIN_PROGRAMS so that xtask builds the program",
                None => "add the program to xtask/programs/build",
            };
            bail!("the program {name} is missing in {}: {what_to_do}", directory.display());
        }
        Ok(path)
    }

    /// The directory that contains all programs. Missing programs are built first, which takes minutes on a fresh machine.
    pub fn directory(&self) -> Result<&Path> {
        if let Some(given) = &self.given {
            return Ok(given);
        }
        if let Some(built) = self.built.get() {
            return Ok(built);
        }
        let built = build()?;
        Ok(self.built.get_or_init(|| built))
    }
}

/// Runs the script `xtask/programs/build`, which prints the directory of the programs on its last line.
fn build() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/build");
    let run = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("the script {} did not start", script.display()))?;
    if !run.status.success() {
        bail!(
            "the script {} failed ({}); its output is above; set BOBBIN_PROGRAMS=<directory> to use ready-made programs",
            script.display(),
            run.status
        );
    }
    let output = String::from_utf8_lossy(&run.stdout);
    let last =
        output.lines().last().with_context(|| format!("the script {} printed no directory", script.display()))?;
    Ok(PathBuf::from(last.trim()))
}
