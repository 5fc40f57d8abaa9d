//! The list of excused files. By default, the linter does not report the findings in these files. The linter can
//! remove files from the list, but never adds a file.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

/// The excused files, and the comments at the top of the list.
pub struct Excused {
    comments: Vec<String>,
    files: BTreeSet<String>,
}

impl Excused {
    /// Reads the list of excused files: one path per line. `#` begins a comment.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (comments, files): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with('#'));
        Ok(Self {
            comments: comments.into_iter().map(str::to_owned).collect(),
            files: files.into_iter().map(str::to_owned).collect(),
        })
    }

    /// Whether the list contains the file.
    pub fn contains(&self, file: &str) -> bool {
        self.files.contains(file)
    }

    /// Returns the excused files that are not in `unclean`. `unclean` contains all files with findings.
    pub fn not_in(&self, unclean: &BTreeSet<&str>) -> Vec<String> {
        self.files.iter().filter(|file| !unclean.contains(file.as_str())).cloned().collect()
    }

    /// Removes files from the list of excused files.
    pub fn remove(&mut self, files: &[String]) {
        self.files.retain(|file| !files.contains(file));
    }

    /// Writes the list of excused files, sorted.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text: String = self.comments.iter().chain(&self.files).flat_map(|line| [line.as_str(), "\n"]).collect();
        std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
    }
}

#[cfg(test)]
mod tests;
