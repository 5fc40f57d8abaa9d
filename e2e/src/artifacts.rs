//! The executables under test, built once: `bobbin-all` and the shim `bobbin`, both static, since their image has nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Where the two executables are.
#[derive(Clone, Debug)]
pub struct Artifacts {
    all: PathBuf,
    shim: PathBuf,
}

impl Artifacts {
    /// Those in the directory `BOBBIN_ARTIFACTS` if it is given, else those that cargo builds. `BOBBIN_PROFILE=dev` builds quickly and runs slowly.
    pub fn find() -> Result<Self> {
        static FOUND: OnceLock<Artifacts> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let product = match std::env::var_os("BOBBIN_ARTIFACTS").filter(|value| !value.is_empty()) {
            Some(directory) => {
                let directory = PathBuf::from(directory);
                Self { all: directory.join("bobbin-all"), shim: directory.join("bobbin") }
            }
            None => Self::build()?,
        };
        for path in [&product.all, &product.shim] {
            if !path.is_file() {
                bail!("{} is missing: build it, or unset BOBBIN_ARTIFACTS", path.display());
            }
        }
        Ok(FOUND.get_or_init(|| product).clone())
    }

    /// The all-in-one executable: operator and agent.
    pub fn all(&self) -> &Path {
        &self.all
    }

    /// The CNI plugin.
    pub fn shim(&self) -> &Path {
        &self.shim
    }

    fn build() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("e2e is in the repository")?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let profile = std::env::var("BOBBIN_PROFILE").unwrap_or_else(|_| "release".to_owned());
        for (package, profile) in [("bobbin-all", profile.as_str()), ("bobbin-shim", "shim")] {
            let mut cargo = Command::new("cargo");
            // What the cargo that started us says of its package makes build scripts of others run again, and minutes pass.
            for (name, _) in std::env::vars_os() {
                let ours = name.to_str().is_some_and(|name| {
                    name.starts_with("CARGO") && !matches!(name, "CARGO_HOME" | "CARGO_TARGET_DIR")
                });
                if ours {
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
                .context("cargo did not start: install Rust by rustup")?;
            if !status.success() {
                bail!("{package} does not build: cargo says above why");
            }
        }
        let place = |profile: &str| target.join(&platform).join(if profile == "dev" { "debug" } else { profile });
        Ok(Self { all: place(&profile).join("bobbin-all"), shim: place("shim").join("bobbin") })
    }
}
