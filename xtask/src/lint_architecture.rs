//! `cargo xtask lint-architecture`: reports missing source files and tests that a document mentions.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::files;

/// The documents to check.
const DOCUMENTS: [&str; 2] = ["ARCHITECTURE.md", "docs/failure-modes.md"];

/// Prints each missing file or test that a document mentions.
pub fn run(root: &Path) -> Result<ExitCode> {
    let files: Vec<String> = files::tracked(root)?.into_iter().filter(|file| is_rust(file)).collect();
    let mut sources = String::new();
    for file in &files {
        let source = std::fs::read_to_string(root.join(file)).with_context(|| format!("{file} can't be read"))?;
        sources.push_str(&join_continued_lines(&source));
    }
    let mut complete = true;
    for name in DOCUMENTS {
        let document = std::fs::read_to_string(root.join(name)).with_context(|| format!("{name} can't be read"))?;
        for unknown in unknown_names(&document, &files, &sources) {
            println!("{name} names `{unknown}`, which does not exist: correct the name");
            complete = false;
        }
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// Joins continued lines of string literals, because rustfmt may split a test's name over several lines.
fn join_continued_lines(source: &str) -> String {
    let mut joined = String::with_capacity(source.len());
    let mut continued = false;
    for line in source.lines() {
        let line = if continued { line.trim_start() } else { line };
        continued = line.ends_with('\\');
        joined.push_str(line.strip_suffix('\\').unwrap_or(line));
        if !continued {
            joined.push('\n');
        }
    }
    joined
}

/// Returns the files and tests that the document mentions, but that are missing in the sources.
fn unknown_names(document: &str, files: &[String], sources: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    for line in document.lines() {
        for name in code_spans(line).filter(|name| is_rust(name) && !name.contains([' ', '*'])) {
            if !files.iter().any(|file| file == name || file.ends_with(&format!("/{name}"))) {
                unknown.push(name.to_owned());
            }
        }
        for name in code_spans(tests_of(line)) {
            let function = format!("fn {name}(");
            let literal = format!("\"{name}\"");
            if !sources.contains(&function) && !sources.contains(&literal) {
                unknown.push(name.to_owned());
            }
        }
    }
    unknown
}

/// Returns the cell with the names of tests. This cell is the last column of a table row whose first column is a number.
/// Returns an empty text for any other line.
fn tests_of(line: &str) -> &str {
    let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
    let is_row = cells.next().is_some_and(|number| number.parse::<u32>().is_ok());
    if is_row { cells.next_back().unwrap_or_default() } else { "" }
}

fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_tests_that_no_longer_exist_are_named() {
        let document = "See `run.rs` and `gone.rs`.\n| 1 | rule | `code` | `a test`; `a_unit_test`; `an old test` |";
        let files = ["node-agent/src/run.rs".to_owned()];
        let sources = join_continued_lines("suite.test(\"a \\\n    test\");\nfn a_unit_test() {}");
        assert_eq!(unknown_names(document, &files, &sources), ["gone.rs", "an old test"]);
    }
}
