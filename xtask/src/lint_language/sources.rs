//! Chooses the reader that finds the prose in a file, by the kind of the file.

mod cel;
mod hash;
mod json;
mod notes;
mod rust;

use super::prose::{Block, Line};

/// The folder of manifests that are generated from doc comments. The doc comments are checked in the Rust files instead.
const GENERATED: &str = "charts/bobbin/templates/crds/";

/// The blocks of prose in a file. Empty if a file of this kind contains no prose.
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
