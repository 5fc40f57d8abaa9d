//! The types that the source readers and the checks share: source lines, and words with their line numbers.

/// One line of prose with its line number in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub number: usize,
    pub text: String,
}

/// Adjacent lines that belong together, such as one comment. The linter parses each block as Markdown.
pub type Block = Vec<Line>;

/// A word with the number of its line in the file. A code span is one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub line: usize,
    pub text: String,
}

/// The words of one paragraph, heading, list item or table cell.
pub type Passage = Vec<Word>;
