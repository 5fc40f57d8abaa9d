//! Prints the result of a command in the format that the user chose.

use anyhow::Result;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Format;

/// The result of a command, for people and for programs.
pub(crate) trait Report: Serialize {
    /// The result as text for people. `wide` asks for more columns.
    fn text(&self, wide: bool) -> String;
}

/// Prints reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Prints a report.
    pub(crate) fn print(self, report: &impl Report) -> Result<()> {
        match self.format {
            Format::Table => anstream::println!("{}", report.text(false)),
            Format::Wide => anstream::println!("{}", report.text(true)),
            Format::Json => anstream::println!("{}", serde_json::to_string_pretty(report)?),
            Format::Yaml => anstream::print!("{}", serde_saphyr::to_string(report)?),
        }
        Ok(())
    }
}

/// A table without lines, like those of `kubectl get`.
pub(crate) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.into_iter().map(str::to_uppercase).collect::<Vec<_>>());
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
}

/// A cell that is green if `good`, else red. Without a terminal it has no colour.
pub(crate) fn verdict(text: impl ToString, good: bool) -> Cell {
    Cell::new(text).fg(if good { Color::Green } else { Color::Red })
}

/// Escapes control characters, and characters that reorder text. In a text from another program, such characters could change what
/// the terminal shows.
pub(crate) fn escaped(text: &str) -> String {
    let hides = |one: char| one.is_control() || matches!(one, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for one in text.chars() {
        if hides(one) { shown.extend(one.escape_default()) } else { shown.push(one) }
    }
    shown
}

/// A text, or `-` if there is none.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_change_the_terminal_are_escaped() {
        assert_eq!(escaped("a\u{1b}[2J\r\n\u{9b}\u{202e}é"), "a\\u{1b}[2J\\r\\n\\u{9b}\\u{202e}é");
        assert_eq!(escaped(&escaped("a\tb")), escaped("a\tb"));
    }
}
