//! `cargo xtask lint-language`: reports sentences that are hard to read.

mod banned;
mod excused;
mod markdown;
mod prose;
mod sentence;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use banned::BannedPhrases;
use excused::Excused;

use crate::files;

/// The path of the list of phrases that have a plainer form.
const BANNED: &str = "xtask/banned-phrases.txt";
/// The path of the list of excused files. By default, the linter does not report findings in these files.
const EXCUSED: &str = "xtask/language-excused.txt";

/// The files to check.
#[derive(clap::Args)]
pub struct Arguments {
    /// Check only these files and folders, and report excused files too.
    paths: Vec<String>,
    /// Remove deleted files and files without findings from the list of excused files. Never add a file to the list.
    #[arg(long, conflicts_with = "paths")]
    update_excused: bool,
}

/// A sentence to rewrite, with its place and the problem.
struct Finding {
    file: String,
    line: usize,
    problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// Checks the files under `root` and prints the findings.
pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let banned = BannedPhrases::read(&root.join(BANNED))?;
    let excused_path = root.join(EXCUSED);
    let mut excused = Excused::read(&excused_path)?;
    let mut findings = Vec::new();
    for file in files::tracked(root)? {
        if arguments.paths.is_empty() || arguments.paths.iter().any(|path| files::is_under(&file, path)) {
            findings.extend(check_file(root, &file, &banned)?);
        }
    }
    if !arguments.paths.is_empty() {
        return Ok(report(&findings));
    }
    let unclean: BTreeSet<&str> = findings.iter().map(|finding| finding.file.as_str()).collect();
    let not_needed = excused.not_in(&unclean);
    if arguments.update_excused {
        excused.remove(&not_needed);
        excused.write(&excused_path)?;
    } else if !not_needed.is_empty() {
        for file in &not_needed {
            println!(
                "{EXCUSED}: the file {file} no longer has findings or was deleted: run `cargo xtask lint-language --update-excused`"
            );
        }
    }
    let open: Vec<Finding> = findings.into_iter().filter(|finding| !excused.contains(&finding.file)).collect();
    let stale = !arguments.update_excused && !not_needed.is_empty();
    let result = report(&open);
    Ok(if stale { ExitCode::FAILURE } else { result })
}

fn check_file(root: &Path, file: &str, banned: &BannedPhrases) -> Result<Vec<Finding>> {
    let path = root.join(file);
    let bytes = std::fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
    // A file that is not UTF-8, such as a picture, has no sentences.
    let Ok(text) = String::from_utf8(bytes) else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    for block in sources::blocks(file, &text) {
        for passage in markdown::passages(&block) {
            for sentence in sentence::split(&passage) {
                let problems = sentence.too_long().into_iter().chain(banned.problems(&sentence));
                findings.extend(problems.map(|problem| Finding {
                    file: file.to_owned(),
                    line: sentence.line,
                    problem,
                }));
            }
        }
    }
    findings.sort_by_key(|finding| finding.line);
    Ok(findings)
}

/// Prints the findings, and the number of findings in each top-level folder.
fn report(findings: &[Finding]) -> ExitCode {
    if findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        println!("{finding}");
        let folder = finding.file.split_once('/').map_or(finding.file.as_str(), |(folder, _)| folder);
        *folders.entry(folder).or_default() += 1;
    }
    let folders: Vec<String> = folders.iter().map(|(folder, count)| format!("{folder} {count}")).collect();
    println!("{} findings in these folders: {}", findings.len(), folders.join(", "));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests;
