//! The repository's own tasks, run as `cargo xtask <task>`. Each task has a file of its name.

mod lint_language;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of Bobbin's repository.")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Report sentences that are too long, and phrases that have a plainer form.
    LintLanguage(lint_language::Arguments),
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not inside a workspace")?;
    match Arguments::parse().task {
        Task::LintLanguage(arguments) => lint_language::run(root, &arguments),
    }
}
