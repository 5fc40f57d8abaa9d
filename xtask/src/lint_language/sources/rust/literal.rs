//! String literals: what they say, line by line, and whether it is a sentence.

use crate::lint_language::prose::{Block, Line};

/// Signs of an expression or a command, which is not prose.
const CODE: [&str; 8] = ["&&", "||", " == ", " != ", "self.", " => ", "; do ", " --"];

/// The lines of a string literal that begins at line `number`, with its escapes resolved.
///
/// An escaped line break begins a new paragraph; a line that is continued by a backslash goes on.
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

/// How many words of letters a line has.
pub fn words(line: &str) -> usize {
    line.split_whitespace().filter(|word| word.trim_matches(is_punctuation).chars().all(is_letter)).count()
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
}

fn is_letter(character: char) -> bool {
    character.is_alphabetic() || character == '\'' || character == '-'
}

/// Whether a line is an expression or a command.
pub fn is_code(line: &str) -> bool {
    CODE.iter().any(|sign| line.contains(sign))
}
