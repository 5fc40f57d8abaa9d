//! Reads YAML, TOML, shell scripts, makefiles and Helm templates: comments, and values that people read.

use super::cel;
use crate::lint_language::prose::{Block, Line};

/// Keys whose values are texts that people read.
const MESSAGES: [&str; 2] = ["message: ", "description: "];

/// The comments and messages of a file. Adjacent comment lines with the same indentation are one comment.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut comment = Block::new();
    let mut message = Block::new();
    let mut indentation = 0;
    for (line, number) in text.lines().zip(1..) {
        let trimmed = line.trim_start();
        // This line is part of a message that a CEL expression assembles.
        if trimmed.starts_with('\'') || trimmed.starts_with("+ '") {
            message.push(Line { number, text: cel::quoted(trimmed) });
            continue;
        }
        if !message.is_empty() {
            blocks.push(std::mem::take(&mut message));
        }
        let indented = line.len() - trimmed.len();
        let whole = trimmed.strip_prefix('#').filter(|rest| !rest.starts_with('!'));
        if (whole.is_none() || indented != indentation) && !comment.is_empty() {
            blocks.push(std::mem::take(&mut comment));
        }
        indentation = indented;
        if let Some(rest) = whole {
            comment.push(Line { number, text: rest.strip_prefix(' ').unwrap_or(rest).to_owned() });
        } else if let Some(text) = part_of_line(trimmed) {
            blocks.push(vec![Line { number, text }]);
        }
    }
    blocks.extend([comment, message].into_iter().filter(|block| !block.is_empty()));
    blocks
}

/// The prose in a line of code: a comment or `fail` text of a template, a message, or a trailing comment.
fn part_of_line(line: &str) -> Option<String> {
    if let Some((_, comment)) = line.split_once("{{/*") {
        return Some(comment.split_once("*/").map_or(comment, |(comment, _)| comment).to_owned());
    }
    let entry = line.trim_start_matches("- ");
    if let Some(message) = MESSAGES.iter().find_map(|key| entry.strip_prefix(key)) {
        return Some(message.trim_matches(['"', '\'', '>', '|', '-']).to_owned());
    }
    if let Some((_, message)) = line.split_once("{{- fail \"") {
        return Some(message.split('"').next().unwrap_or(message).to_owned());
    }
    let (code, comment) = line.split_once(" # ")?;
    let quoted = code.matches('"').count() % 2 == 1 || code.matches('\'').count() % 2 == 1;
    (!quoted).then(|| comment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Vec<(usize, String)>> {
        let blocks = blocks(text).into_iter();
        blocks.map(|block| block.into_iter().map(|line| (line.number, line.text)).collect()).collect()
    }

    #[test]
    fn lines_of_one_comment_are_one_block() {
        let text = "#!/bin/sh\n# a\n# b\nkey: 1\n  # c\n# d\n";
        assert_eq!(
            read(text),
            [vec![(2, "a".to_owned()), (3, "b".to_owned())], vec![(5, "c".to_owned())], vec![(6, "d".to_owned())]]
        );
    }

    #[test]
    fn comments_behind_code_and_of_templates_and_messages_are_read() {
        let text =
            "a: \"x # y\"\nb: 1 # why\n{{/* Labels. */}}\n- message: \"must be set\"\n{{- fail \"two ports\" }}\n";
        assert_eq!(
            read(text),
            [
                vec![(2, "why".to_owned())],
                vec![(3, " Labels. ".to_owned())],
                vec![(4, "must be set".to_owned())],
                vec![(5, "two ports".to_owned())]
            ]
        );
    }

    #[test]
    fn the_parts_of_a_message_in_cel_are_one_block() {
        let text = "messageExpression: >-\n  'block ' + a + ' is'\n  + ' claimed'\nb: 1\n";
        assert_eq!(read(text), [vec![(2, "block {} is".to_owned()), (3, "{} claimed".to_owned())]]);
    }
}
