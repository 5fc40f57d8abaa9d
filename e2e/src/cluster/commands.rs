//! Runs `kubectl` and `helm` as the administrator of the test cluster.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Cluster;
use crate::wait::{Poll, wait_until};

impl Cluster {
    /// Runs `kubectl` as the administrator and returns its output.
    pub fn kubectl<const N: usize>(&self, words: [&str; N]) -> Result<String> {
        self.run_program("kubectl", &words)
    }

    /// Repeats a `kubectl` command until it succeeds, and returns its output.
    pub async fn await_kubectl<const N: usize>(&self, words: [&str; N], within: Duration) -> Result<String> {
        wait_until(&format!("`kubectl {}` succeeds", words.join(" ")), within, || async move {
            self.kubectl(words).map(Poll::Ready)
        })
        .await
    }

    /// Runs `helm` as the administrator and returns its output.
    pub fn helm<const N: usize>(&self, words: [&str; N]) -> Result<String> {
        self.run_program("helm", &words)
    }

    pub(super) fn run_program(&self, program: &str, words: &[&str]) -> Result<String> {
        let home = self.run.make_directory("home")?;
        let end = Command::new(self.programs.path(program)?)
            .args(words)
            .env("KUBECONFIG", self.control_plane.admin_kubeconfig()?)
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{program} did not start"))?;
        if !end.status.success() {
            bail!("`{program} {}` failed: {}", words.join(" "), String::from_utf8_lossy(&end.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&end.stdout).into_owned())
    }
}
