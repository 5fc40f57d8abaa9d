//! Reads the comments of a values file. YAML libraries drop comments, so this file reads the lines itself.

/// The indentation of one level.
const INDENTATION: usize = 2;

/// One key of the values file with the comment above it.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The names of the keys from the outermost key to this key.
    pub path: Vec<String>,
    /// The comment as one line. It is empty if there is no comment.
    pub comment: String,
    /// The number of the key's line.
    pub line: usize,
}

/// All keys of a values file, in their order. A line that begins with `- ` is an item of a list, and its key is left out.
pub fn entries(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let trimmed = line.trim_start();
        if let Some(words) = trimmed.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let above = std::mem::take(&mut comment).join(" ");
        let Some((key, _)) = trimmed.split_once(':') else { continue };
        if trimmed.starts_with("- ") {
            continue;
        }
        path.truncate((line.len() - trimmed.len()) / INDENTATION);
        path.push(key.to_owned());
        entries.push(Entry { path: path.clone(), comment: above, line: number });
    }
    entries
}

/// The entries directly below a path.
pub fn children<'a>(entries: &'a [Entry], path: &[String]) -> impl Iterator<Item = &'a Entry> {
    entries.iter().filter(move |entry| entry.path.split_last().is_some_and(|(_, parent)| parent == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_path_and_the_comment_above_it() {
        let text = "# One.\n# Two.\na:\n  # Three.\n  b: x # y\n  c:\n    - d: 1\ne: {}\n";
        let seen: Vec<(String, String, usize)> =
            entries(text).into_iter().map(|entry| (entry.path.join("."), entry.comment, entry.line)).collect();
        let row = |path: &str, comment: &str, line| (path.to_owned(), comment.to_owned(), line);
        assert_eq!(seen, [row("a", "One. Two.", 3), row("a.b", "Three.", 5), row("a.c", "", 6), row("e", "", 8)]);
    }
}
