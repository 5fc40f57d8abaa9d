//! Reads string literals: splits them into lines, and decides whether the text is a sentence.

use crate::lint_language::prose::{Block, Line};

/// Texts that occur only in CEL expressions.
const EXPRESSION: [&str; 7] = ["&&", "||", " == ", " != ", "self.", " + '", "' + "];

/// Returns the lines of a string literal, with escapes resolved. The literal begins at line `number` of the file.
///
/// The escape `\n` begins a new paragraph. A line that ends with a backslash continues in the next line of the source.
pub fn lines(literal: &str, number: usize) -> Block {
    let raw = literal.starts_with('r');
    let inside = literal.trim_start_matches('r').trim_matches('#');
    let inside = inside.strip_prefix('"').unwrap_or(inside);
    let inside = inside.strip_suffix('"').unwrap_or(inside);
    let mut lines = vec![Line { number, text: String::new() }];
    let mut source_line = number;
    let mut characters = inside.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => {
                source_line += 1;
                lines.push(Line { number: source_line, text: String::new() });
            }
            '\\' if !raw => match characters.next() {
                Some('\n') => {
                    source_line += 1;
                    lines.push(Line { number: source_line, text: String::new() });
                    while let Some(space) = characters.next_if(|next| next.is_whitespace()) {
                        source_line += usize::from(space == '\n');
                    }
                    if let Some(line) = lines.last_mut() {
                        line.number = source_line;
                    }
                }
                Some('n') => {
                    lines.push(Line { number: source_line, text: String::new() });
                    lines.push(Line { number: source_line, text: String::new() });
                }
                Some('u') => while characters.next_if(|next| *next != '}').is_some() {},
                Some(escaped @ ('"' | '\\' | '\'')) => push(&mut lines, escaped),
                _ => push(&mut lines, ' '),
            },
            other => push(&mut lines, other),
        }
    }
    lines
}

fn push(lines: &mut [Line], character: char) {
    if let Some(line) = lines.last_mut() {
        line.text.push(character);
    }
}

/// Counts the words of a line. Skips words that do not consist of letters.
pub fn words(line: &str) -> usize {
    line.split_whitespace().filter(|word| word.trim_matches(is_punctuation).chars().all(is_letter)).count()
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
}

fn is_letter(character: char) -> bool {
    character.is_alphabetic() || character == '\'' || character == '-'
}

/// Whether a line of a literal is a CEL expression.
pub fn is_expression(line: &str) -> bool {
    EXPRESSION.iter().any(|sign| line.contains(sign))
}
