//! Reads the text that Helm prints after an install. The text is prose with template directives and indented commands.

use crate::lint_language::prose::{Block, Line};

/// Returns the notes as one block. Directives and commands become empty lines, and each inserted value becomes one word.
pub fn blocks(text: &str) -> Vec<Block> {
    let lines = text.lines().zip(1..);
    let block = lines.map(|(line, number)| {
        let text = if line.starts_with("  ") { String::new() } else { without_directives(line) };
        Line { number, text }
    });
    vec![block.collect()]
}

fn without_directives(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (directive, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        if directive.trim_start().starts_with('.') {
            out.push_str("{value}");
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_and_commands_are_left_out() {
        let text =
            "{{- if .Values.a }}\nTable {{ .Values.b }} is{{ if .Values.c }} not{{ end }} used:\n\n  kubectl get\n";
        let lines: Vec<String> = blocks(text).remove(0).into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["", "Table {value} is not used:", "", ""]);
    }
}
