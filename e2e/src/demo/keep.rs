//! With `KEEP=1`, the cluster keeps running after the demo. A second process in a new session runs the demo and then keeps
//! the cluster. The first process prints the output of the second process, and exits with the demo's result.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use xtask::artifacts::Architecture;

use crate::cluster::Cluster;

/// The environment variable that marks the second process.
const STAY: &str = "BOBBIN_DEMO_STAYS";
/// The last line of the second process begins with this text and contains the exit code. The first process does not
/// print the line.
const END: &str = "\u{4}demo ends with ";

/// What this process does with the demo's cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Run the demo and clean up.
    No,
    /// Start a second process that runs the demo.
    Ask,
    /// Run the demo and keep the cluster.
    Yes,
}

impl Stay {
    /// Decides by the environment variables what this process does.
    pub fn from_environment() -> Self {
        match (std::env::var_os(STAY), std::env::var("KEEP").as_deref()) {
            (Some(_), _) => Self::Yes,
            (None, Ok("" | "0") | Err(_)) => Self::No,
            (None, Ok(_)) => Self::Ask,
        }
    }
}

/// Starts the second process, prints its output, and returns its exit code.
pub fn run_and_leave() -> Result<ExitCode> {
    let mut child = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .env(STAY, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("setsid did not start: install util-linux")?;
    let words = BufReader::new(child.stdout.take().context("the second process has no standard output")?);
    for line in words.lines() {
        let line = line?;
        match line.strip_prefix(END) {
            Some(code) => return Ok(ExitCode::from(code.parse::<u8>().unwrap_or(1))),
            None => println!("{line}"),
        }
    }
    // The second process ended without printing its exit code. So it has failed, and has already printed the error.
    child.wait()?;
    Ok(ExitCode::FAILURE)
}

/// Prints how to use the cluster that the demo keeps.
pub fn how_to_use(cluster: &Cluster) -> Result<()> {
    let kubeconfig = cluster.control_plane().admin_kubeconfig()?;
    let commands = user_commands(cluster)?;
    println!("\nThe cluster keeps running. To use it:");
    println!("  export KUBECONFIG={} PATH={}:$PATH", kubeconfig.display(), commands.display());
    println!("  kubectl get pods -A -o wide");
    println!("  kubectl bobbin check");
    for node in cluster.nodes() {
        println!("  nsenter --target {} --all    # a shell on {}", node.first_process()?, node.name());
    }
    println!("  kill {}    # ends the cluster and removes its files\n", std::process::id());
    Ok(())
}

/// Creates a directory with the commands for the kept cluster (`kubectl` with `kubectl bobbin`, and `helm`), and returns
/// the directory's path. The directory exists as long as the cluster.
pub fn user_commands(cluster: &Cluster) -> Result<PathBuf> {
    let directory = cluster.run().make_directory("bin")?;
    // The copy of the executable in the image's directory stays the same even if somebody builds Bobbin again.
    let bobbin = cluster.run().directory().join("images").join(Architecture::HOST.name()).join("bobbin-all");
    let programs = [
        ("kubectl", cluster.programs().path("kubectl")?),
        ("helm", cluster.programs().path("helm")?),
        ("kubectl-bobbin", bobbin.clone()),
        ("kubectl_complete-bobbin", bobbin),
    ];
    for (name, program) in programs {
        let link = directory.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(&program, &link)
                .with_context(|| format!("{} can't be created", link.display()))?;
        }
    }
    Ok(directory)
}

/// Reports the demo's result to the first process, and keeps the cluster until a signal arrives.
pub async fn stay(cluster: Cluster, good: bool) -> Result<()> {
    println!("{END}{}", u8::from(!good));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(cluster);
    Ok(())
}
