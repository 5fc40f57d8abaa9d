//! Measures the plugin without an agent: the size of its executable, and its run time compared with the run time of
//! `/bin/true`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Report;
use super::samples::Samples;
use crate::single_node::SingleNode;

const RUNS: usize = 300;

/// Measures the plugin and `/bin/true` in alternating order.
pub fn measure(node: &SingleNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: measuring the plugin without an agent");
    let shim = node.artifacts.shim();
    report.plugin_bytes = Some(std::fs::metadata(shim)?.len());
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..RUNS {
        run(shim, &mut ours)?;
        run(Path::new("/bin/true"), &mut theirs)?;
    }
    report.add("plugin, /bin/true", ours, Some(theirs));
    Ok(())
}

/// Runs a program with the CNI command VERSION, which needs no agent. So the measured time covers only the start and
/// the end of the process.
fn run(program: &Path, samples: &mut Samples) -> Result<()> {
    let mut command = Command::new(program);
    command.env_clear().env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().with_context(|| format!("{} did not start", program.display()))?;
    samples.add(start.elapsed());
    ensure!(status.success(), "{} failed: {status}", program.display());
    Ok(())
}
