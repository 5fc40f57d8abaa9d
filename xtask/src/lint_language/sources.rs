//! Chooses a reader by the kind of a file. The reader finds the prose in the file.

mod cel;
mod hash;
mod json;
mod notes;
mod rust;

use super::prose::{Block, Line};

/// The folder of the manifests that are generated from doc comments. The linter skips this folder, because it checks the
/// doc comments in the Rust files.
const GENERATED: &str = "charts/bobbin/templates/crds/";

/// Returns the blocks of prose in a file. The result is empty if a file of this kind contains no prose.
pub fn blocks(file: &str, text: &str) -> Vec<Block> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    match extension {
        _ if file.starts_with(GENERATED) => Vec::new(),
        Some("rs") => rust::blocks(text, rust::is_test(file)),
        Some("md") => vec![numbered(text)],
        Some("json") => json::blocks(text),
        Some("yaml" | "tpl" | "toml" | "sh") => hash::blocks(text),
        _ if name == "NOTES.txt" => notes::blocks(text),
        _ if name == "Makefile" || text.starts_with("#!") => hash::blocks(text),
        _ => Vec::new(),
    }
}

fn numbered(text: &str) -> Block {
    text.lines().zip(1..).map(|(text, number)| Line { number, text: text.to_owned() }).collect()
}
