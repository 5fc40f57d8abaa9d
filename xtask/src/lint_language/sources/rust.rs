//! Reads Rust files: comments, and string literals that are sentences.

mod literal;

use ra_ap_rustc_lexer::{FrontmatterAllowed, LiteralKind, TokenKind, tokenize};

use super::cel;
use crate::lint_language::prose::{Block, Line};

/// The minimum number of words in a sentence. The reader treats a literal with fewer words as a name, a format or a key.
const SENTENCE_WORDS: usize = 4;

/// Whether the file contains only test code.
pub fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.ends_with("/model.rs") || file.contains("/tests/")
}

/// The comments and messages of a Rust file. In test code, only comments and the names of tests are read.
pub fn blocks(text: &str, test_code: bool) -> Vec<Block> {
    let mut reader = Reader { line: 1, test_code, ..Reader::default() };
    let mut rest = text;
    for token in tokenize(text, FrontmatterAllowed::No) {
        let (now, later) = rest.split_at(token.len as usize);
        reader.token(token.kind, now);
        reader.line += now.matches('\n').count();
        rest = later;
    }
    reader.end_comment();
    reader.blocks
}

#[derive(Default)]
struct Reader {
    blocks: Vec<Block>,
    /// The line number of the current token.
    line: usize,
    test_code: bool,
    /// The lines of the current comment, and the marker at the start of each line.
    comment: Block,
    marker: &'static str,
    /// The most recent tokens that are neither comments nor whitespace.
    before: Vec<String>,
    /// For each open brace, whether its content is test code (an item with `#[cfg(test)]`).
    braces: Vec<bool>,
    /// True between the attribute `#[cfg(test)]` and the beginning of the item that has this attribute.
    test_item: bool,
}

impl Reader {
    fn token(&mut self, kind: TokenKind, text: &str) {
        match kind {
            TokenKind::Whitespace => {
                // An empty line ends a comment.
                if text.matches('\n').count() > 1 {
                    self.end_comment();
                }
            }
            TokenKind::LineComment { .. } => self.line_comment(text),
            TokenKind::BlockComment { .. } => self.block_comment(text),
            _ => {
                self.end_comment();
                self.code(kind, text);
            }
        }
    }

    fn line_comment(&mut self, text: &str) {
        let marker = ["//!", "///", "//"].into_iter().find(|marker| text.starts_with(marker)).unwrap_or("//");
        if marker != self.marker || self.comment.last().is_some_and(|last| last.number + 1 != self.line) {
            self.end_comment();
        }
        self.marker = marker;
        let text = &text[marker.len()..];
        self.comment.push(Line { number: self.line, text: text.strip_prefix(' ').unwrap_or(text).to_owned() });
    }

    fn block_comment(&mut self, text: &str) {
        self.end_comment();
        let inside = text.trim_start_matches(['/', '*', '!']).trim_end_matches(['/', '*']);
        let lines = inside.lines().zip(self.line..);
        let lines = lines.map(|(text, number)| Line { number, text: text.trim_start_matches([' ', '*']).to_owned() });
        self.blocks.push(lines.collect());
    }

    fn end_comment(&mut self) {
        if !self.comment.is_empty() {
            self.blocks.push(std::mem::take(&mut self.comment));
        }
    }

    fn code(&mut self, kind: TokenKind, text: &str) {
        match kind {
            TokenKind::OpenBrace => {
                let in_test = self.in_test() || self.test_item;
                self.test_item = false;
                self.braces.push(in_test);
            }
            TokenKind::CloseBrace => drop(self.braces.pop()),
            TokenKind::Semi => self.test_item = false,
            TokenKind::Literal { kind: LiteralKind::Str { .. } | LiteralKind::RawStr { .. }, .. } => self.literal(text),
            _ => {}
        }
        if self.before.len() == 8 {
            self.before.remove(0);
        }
        self.before.push(text.to_owned());
        if self.before.ends_with(&["#", "[", "cfg", "(", "test", ")", "]"].map(str::to_owned)) {
            self.test_item = true;
        }
    }

    fn literal(&mut self, text: &str) {
        if self.in_test() && !self.names_a_test() {
            return;
        }
        let mut block = literal::lines(text, self.line);
        if block.iter().any(|line| literal::is_expression(&line.text)) {
            for line in &mut block {
                line.text = cel::quoted(&line.text);
            }
        }
        let prose: usize = block.iter().map(|line| literal::words(&line.text)).sum();
        if prose >= SENTENCE_WORDS {
            self.blocks.push(block);
        }
    }

    fn in_test(&self) -> bool {
        self.test_code || self.braces.last().copied().unwrap_or(false)
    }

    /// Whether the next literal is the name of a test, which is the first argument of a call such as `stage.test(…)` or
    /// `Trial::test(…)`.
    fn names_a_test(&self) -> bool {
        matches!(&self.before[..], [.., name, bracket] if bracket == "(" && (name == "test" || name.ends_with("_test")))
    }
}

#[cfg(test)]
mod tests;
