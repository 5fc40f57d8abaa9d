//! The files of the repository, as git lists them.

use std::path::Path;
use std::process::Command;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_selects_itself_and_what_lies_under_it() {
        assert!(is_under("ipam/src/lib.rs", "ipam"));
        assert!(is_under("ipam/src/lib.rs", "./ipam/"));
        assert!(is_under("ipam/src/lib.rs", "ipam/src/lib.rs"));
        assert!(is_under("ipam/src/lib.rs", "."));
        assert!(!is_under("ipam/src/lib.rs", "ip"));
    }
}
