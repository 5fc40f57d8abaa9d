//! Network namespaces of the test cluster: for the switch, the control plane and each node.
//!
//! A namespace exists as long as this process keeps it open, or as any process runs in it. No file refers to the namespace,
//! so nothing remains after the tests. This module never changes the namespace in which the tests run.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// Creates a network namespace that has only a loopback link, which is up.
    pub fn make() -> Result<Self> {
        let made = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace can't be created: run as root")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let file = made.join().map_err(|_| anyhow!("the thread that creates a network namespace panicked"))??;
        let this = Self { file: Arc::new(file) };
        this.ip("link set lo up")?;
        Ok(this)
    }

    /// Opens the network namespace at a path such as `/proc/PID/ns/net`.
    pub fn at(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("the network namespace {} is gone", path.display()))?;
        Ok(Self::from(file))
    }

    /// A path through which other processes can enter the namespace while this process lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs iproute2 commands in the namespace, one per line (`ip -batch`), and stops at the first command that fails.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = self
            .command("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the program ip is missing: install the package iproute2")?;
        child.stdin.take().context("ip has no input")?.write_all(lines.as_bytes())?;
        let end = child.wait_with_output()?;
        if !end.status.success() {
            bail!("ip refused one of these commands: {lines}: {}", String::from_utf8_lossy(&end.stderr).trim());
        }
        Ok(())
    }

    /// Creates a command that runs in this network namespace, but in the mount and PID namespaces of this process.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a function on a thread in the namespace, and returns the function's result. The function must not wait
    /// forever.
    pub fn run<T: Send + 'static>(&self, function: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let file = self.file.clone();
        let inside = std::thread::spawn(move || -> Result<T> {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
                .context("the thread can't enter the network namespace: run as root")?;
            Ok(function())
        });
        inside.join().map_err(|_| anyhow!("the thread inside the namespace panicked"))?
    }
}

impl From<File> for Namespace {
    /// The network namespace that an open file refers to.
    fn from(file: File) -> Self {
        Self { file: Arc::new(file) }
    }
}
