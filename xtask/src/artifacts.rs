//! Bobbin's two executables: `bobbin-all` and the CNI plugin `bobbin`. Both are statically linked, because the image
//! contains no other files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The paths of Bobbin's two executables.
#[derive(Clone, Debug)]
pub struct Artifacts {
    all: PathBuf,
    shim: PathBuf,
}

impl Artifacts {
    /// If the variable `BOBBIN_ARTIFACTS` is set, returns the executables in that directory. Otherwise, builds the
    /// executables with cargo. The build is quicker with `BOBBIN_PROFILE=dev`.
    pub fn find() -> Result<Self> {
        static FOUND: OnceLock<Artifacts> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let artifacts = match std::env::var_os("BOBBIN_ARTIFACTS").filter(|value| !value.is_empty()) {
            Some(directory) => Self::in_directory(Path::new(&directory))
                .context("BOBBIN_ARTIFACTS must name a directory with both executables")?,
            None => Self::build()?,
        };
        Ok(FOUND.get_or_init(|| artifacts).clone())
    }

    /// Returns the executables in the given directory.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let directory = directory.canonicalize().with_context(|| format!("{} is missing", directory.display()))?;
        let artifacts = Self { all: directory.join("bobbin-all"), shim: directory.join("bobbin") };
        for path in [&artifacts.all, &artifacts.shim] {
            if !path.is_file() {
                bail!("{} is missing: build it with `cargo xtask artifacts`", path.display());
            }
        }
        Ok(artifacts)
    }

    /// The path of the executable `bobbin-all`, which contains operator and agent.
    pub fn all(&self) -> &Path {
        &self.all
    }

    /// The path of the CNI plugin.
    pub fn shim(&self) -> &Path {
        &self.shim
    }

    fn build() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not inside a workspace")?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let profile = std::env::var("BOBBIN_PROFILE").unwrap_or_else(|_| "release".to_owned());
        for (package, profile) in [("bobbin-all", profile.as_str()), ("bobbin-shim", "shim")] {
            let mut cargo = Command::new("cargo");
            // Removes the variables of the calling cargo. With these variables, build scripts would run again, which takes
            // minutes.
            for (name, _) in std::env::vars_os() {
                let of_caller = name.to_str().is_some_and(|name| {
                    name.starts_with("CARGO") && !matches!(name, "CARGO_HOME" | "CARGO_TARGET_DIR")
                });
                if of_caller {
                    cargo.env_remove(&name);
                }
            }
            let status = cargo
                .current_dir(root)
                .args(["build", "--locked", "--profile", profile, "--package", package, "--target", &platform])
                .env("RUSTFLAGS", "-C target-feature=+crt-static")
                .env("CARGO_TARGET_DIR", &target)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .context("cargo did not start: install Rust with rustup")?;
            if !status.success() {
                bail!("cargo could not build {package}; the errors of cargo are above");
            }
        }
        let directory = |profile: &str| target.join(&platform).join(if profile == "dev" { "debug" } else { profile });
        Ok(Self { all: directory(&profile).join("bobbin-all"), shim: directory("shim").join("bobbin") })
    }
}
