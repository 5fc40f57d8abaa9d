//! The files of the repository: those that git tracks, and those that a task generates.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

/// The files that git tracks, and new files that git does not ignore, as sorted paths relative to `root`.
pub fn tracked(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        // This option lets git read a checkout that another user owns, for example in a container.
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git can't be started")?;
    ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let existing = names.split('\0').filter(|name| !name.is_empty() && root.join(name).is_file());
    let mut files: Vec<String> = existing.map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// Whether `file` is the file `path` or lies under the folder `path`. The path `.` means the whole repository.
pub fn is_under(file: &str, path: &str) -> bool {
    let path = path.trim_start_matches("./").trim_end_matches('/');
    path.is_empty() || path == "." || file == path || file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

/// The flags of a task that generates a file.
#[derive(clap::Args)]
pub struct GenerateArgs {
    /// Write nothing. Only report whether the file is out of date.
    #[arg(long)]
    check: bool,
}

impl GenerateArgs {
    /// Writes `text` to the file `path` under `root`, or compares the file with `text`. Returns a sentence if the file is
    /// out of date. `task` is the name of the task that generates the file.
    pub fn write_or_check(&self, root: &Path, path: &str, text: &str, task: &str) -> Result<Option<String>> {
        let file = root.join(path);
        if !self.check {
            std::fs::write(&file, text).with_context(|| format!("{path} can't be written"))?;
            return Ok(None);
        }
        let is_current = std::fs::read_to_string(&file).unwrap_or_default() == text;
        Ok((!is_current).then(|| format!("{path} is out of date: run `cargo xtask {task}` and commit the result")))
    }
}

/// Prints the problems. Returns the exit code of the task: a failure if there are any problems.
pub fn report(problems: impl IntoIterator<Item = String>) -> ExitCode {
    let count = problems.into_iter().inspect(|problem| println!("{problem}")).count();
    if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_reports_a_file_that_differs_or_is_missing_and_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let apply = |check: bool, text: &str| {
            GenerateArgs { check }.write_or_check(root.path(), "page.md", text, "flags").unwrap()
        };
        let missing = apply(true, "old").unwrap();
        assert_eq!(missing, "page.md is out of date: run `cargo xtask flags` and commit the result");
        assert!(!root.path().join("page.md").exists());
        assert_eq!(apply(false, "old"), None);
        assert_eq!(apply(true, "old"), None);
        assert!(apply(true, "new").is_some());
        assert_eq!(std::fs::read_to_string(root.path().join("page.md")).unwrap(), "old");
    }

    #[test]
    fn a_path_selects_itself_and_what_lies_under_it() {
        assert!(is_under("ipam/src/lib.rs", "ipam"));
        assert!(is_under("ipam/src/lib.rs", "./ipam/"));
        assert!(is_under("ipam/src/lib.rs", "ipam/src/lib.rs"));
        assert!(is_under("ipam/src/lib.rs", "."));
        assert!(!is_under("ipam/src/lib.rs", "ip"));
    }
}
