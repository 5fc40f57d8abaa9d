//! Reads JSON schemas: titles, descriptions and comments.

use crate::lint_language::prose::{Block, Line};

/// Keys whose values are texts that people read.
const PROSE: [&str; 4] = ["\"title\": ", "\"description\": ", "\"$comment\": ", "\"errorMessage\": "];

/// The texts of a schema file that people read. The file must have at most one key per line.
pub fn blocks(text: &str) -> Vec<Block> {
    let lines = text.lines().zip(1..);
    let values = lines.filter_map(|(line, number)| {
        PROSE.iter().find_map(|key| Some((line.split_once(key)?.1.trim_end_matches(','), number)))
    });
    values.map(|(value, number)| vec![Line { number, text: value.trim_matches('"').replace("\\\"", "\"") }]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read_and_other_strings_are_not() {
        let blocks = blocks("{\n  \"type\": \"object\",\n  \"description\": \"Say \\\"why\\\".\",\n}");
        assert_eq!(blocks, [vec![Line { number: 3, text: "Say \"why\".".to_owned() }]]);
    }
}
