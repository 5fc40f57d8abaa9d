//! Bobbin's two executables: `bobbin-all` and the CNI plugin `bobbin`. Both are statically linked, because the image
//! contains no other files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The CPU architectures of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// All architectures of a release.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];
    /// The architecture of this machine.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// The name that container images, Go and krew use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The Rust target that cargo builds for.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Debian's compiler for this architecture. It links the executables and compiles the C code of the library ring.
    pub fn compiler(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }
}

/// The paths of Bobbin's two executables.
#[derive(Clone, Debug)]
pub struct Artifacts {
    architecture: Architecture,
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
            None => Self::build(Architecture::HOST, &[])?,
        };
        Ok(FOUND.get_or_init(|| artifacts).clone())
    }

    /// Builds the executables of a release. The executables contain no paths of this machine, so that a build on
    /// another machine gives identical executables.
    pub fn of_release(architecture: Architecture) -> Result<Self> {
        let rust = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc did not start")?;
        let rust = String::from_utf8_lossy(&rust.stdout).trim().to_owned();
        let cargo = match std::env::var_os("CARGO_HOME") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
        };
        let replaced =
            [(workspace()?.display().to_string(), "/bobbin"), (cargo.display().to_string(), "/cargo"), (rust, "/rust")];
        let flags = replaced.map(|(path, name)| format!("--remap-path-prefix={path}={name}"));
        Self::build(architecture, &flags)
    }

    /// Returns the executables in the given directory. They must be built for this machine's architecture.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let directory = directory.canonicalize().with_context(|| format!("{} is missing", directory.display()))?;
        let artifacts = Self {
            architecture: Architecture::HOST,
            all: directory.join("bobbin-all"),
            shim: directory.join("bobbin"),
        };
        for path in [&artifacts.all, &artifacts.shim] {
            if !path.is_file() {
                bail!("{} is missing: build it with `cargo xtask artifacts`", path.display());
            }
        }
        Ok(artifacts)
    }

    /// The architecture that the executables are for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The path of the executable `bobbin-all`, which contains operator and agent.
    pub fn all(&self) -> &Path {
        &self.all
    }

    /// The path of the CNI plugin.
    pub fn shim(&self) -> &Path {
        &self.shim
    }

    fn build(architecture: Architecture, flags: &[String]) -> Result<Self> {
        let root = workspace()?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let platform = architecture.target();
        let profile = std::env::var("BOBBIN_PROFILE").unwrap_or_else(|_| "release".to_owned());
        for (package, profile) in [("bobbin-all", profile.as_str()), ("bobbin-shim", "shim")] {
            let mut cargo = Command::new("cargo");
            // Remove the environment variables that a calling cargo has set. With these variables, the new cargo would run
            // build scripts again, which takes minutes.
            for (name, _) in std::env::vars_os() {
                let of_caller = name.to_str().is_some_and(|name| {
                    name.starts_with("CARGO") && !matches!(name, "CARGO_HOME" | "CARGO_TARGET_DIR")
                });
                if of_caller {
                    cargo.env_remove(&name);
                }
            }
            if architecture != Architecture::HOST {
                let linker = format!("CARGO_TARGET_{}_LINKER", platform.replace('-', "_").to_uppercase());
                cargo.env(linker, architecture.compiler());
            }
            let mut all_flags = vec!["-C target-feature=+crt-static"];
            all_flags.extend(flags.iter().map(String::as_str));
            let status = cargo
                .current_dir(root)
                .args(["build", "--locked", "--profile", profile, "--package", package, "--target", platform])
                .env("RUSTFLAGS", all_flags.join(" "))
                .env("CARGO_TARGET_DIR", &target)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .context("cargo did not start: install Rust with rustup")?;
            if !status.success() {
                bail!("cargo could not build {package} for {}; the errors of cargo are above", architecture.name());
            }
        }
        let directory = |profile: &str| target.join(platform).join(if profile == "dev" { "debug" } else { profile });
        Ok(Self { architecture, all: directory(&profile).join("bobbin-all"), shim: directory("shim").join("bobbin") })
    }
}

fn workspace() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not inside a workspace")
}
