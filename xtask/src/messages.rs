//! `cargo xtask messages`: writes docs/reference/messages.md from the catalog, and checks the catalog against the sources.

mod page;
mod texts;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::files;

/// The page that this task writes.
const PAGE: &str = "docs/reference/messages.md";

/// What to do with the page.
#[derive(clap::Args)]
pub struct Arguments {
    /// Write nothing. Only report whether the page or the catalog is out of date.
    #[arg(long)]
    check: bool,
}

/// Writes the page, or compares it with the catalog. Fails if the sources no longer contain a text of the catalog.
pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let mut sources = Vec::new();
    for file in files::tracked(root)? {
        if texts::is_source(&file) {
            let text = std::fs::read_to_string(root.join(&file)).with_context(|| format!("{file} can't be read"))?;
            sources.push(text);
        }
    }
    let mut problems = texts::problems(&sources);
    let (path, page) = (root.join(PAGE), page::render());
    if !arguments.check {
        std::fs::create_dir_all(path.parent().context("the page is in no directory")?)?;
        std::fs::write(&path, page).with_context(|| format!("{PAGE} can't be written"))?;
    } else if std::fs::read_to_string(&path).unwrap_or_default() != page {
        problems.push(format!("{PAGE} is out of date: run `cargo xtask messages` and commit the result"));
    }
    for problem in &problems {
        println!("{problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
