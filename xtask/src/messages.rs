//! `cargo xtask messages`: writes docs/reference/messages.md from the catalog, and checks the catalog against the sources.

mod page;
mod texts;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::files::{self, GenerateArgs};

/// The page that this task writes.
const PAGE: &str = "docs/reference/messages.md";

/// Writes the page, or compares it with the catalog. Fails if a text of the catalog is missing in the
/// sources.
pub fn run(root: &Path, arguments: &GenerateArgs) -> Result<ExitCode> {
    let mut sources = Vec::new();
    for file in files::tracked(root)? {
        if texts::is_source(&file) {
            let text = std::fs::read_to_string(root.join(&file)).with_context(|| format!("{file} can't be read"))?;
            sources.push(text);
        }
    }
    let mut problems = texts::problems(&sources);
    problems.extend(arguments.write_or_check(root, PAGE, &page::render(), "messages")?);
    Ok(files::report(problems))
}
