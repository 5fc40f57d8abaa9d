//! Compares the catalog with the sources: the code must contain the fixed parts of each text.

use std::path::Path;

use bobbin_cni_wire::code;
use bobbin_messages::condition;
use bobbin_messages::event::{agent, operator};

/// The crates that publish events and conditions, or answer CNI calls.
const CRATES: [&str; 8] = [
    "api-client/src/",
    "cni-shim/src/",
    "cni-wire/src/",
    "datapath/src/",
    "ipam/src/",
    "node-agent/src/",
    "observability/src/",
    "operator/src/",
];

/// Whether the file can contain texts of events, conditions and errors. The catalog itself does not count.
pub fn is_source(file: &str) -> bool {
    CRATES.iter().any(|folder| file.starts_with(folder))
        && file != "cni-wire/src/code.rs"
        && !file.ends_with("tests.rs")
        && !file.contains("/tests/")
        && Path::new(file).extension().is_some_and(|extension| extension == "rs")
}

/// The texts of the catalog that are missing in the sources.
pub fn problems(sources: &[String]) -> Vec<String> {
    let sources: Vec<String> = sources.iter().map(|source| literal_text(source)).collect();
    let events = agent::ALL.iter().chain(operator::ALL).map(|event| (event.reason, event.texts));
    let conditions = condition::all().map(|entry| (entry.reason, entry.texts));
    let codes = code::ALL.iter().map(|code| (code.name, code.texts));
    let mut problems = Vec::new();
    for (name, texts) in events.chain(conditions).chain(codes) {
        for part in texts.iter().flat_map(|text| fixed_parts(text)) {
            if !sources.iter().any(|source| source.contains(part)) {
                problems.push(format!(
                    "the code contains no message with {part:?}: correct the entry {name} of the catalog"
                ));
            }
        }
    }
    problems
}

/// The parts of a text between its placeholders.
fn fixed_parts(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split('<').map(|part| part.split_once('>').map_or(part, |(_, rest)| rest));
    parts.filter(|part| part.trim().len() > 2)
}

/// The source, with the escapes in its literals resolved and continued lines joined.
fn literal_text(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        match after.chars().next() {
            Some('\n') => rest = after.trim_start(),
            Some(escaped) => {
                text.push(escaped);
                rest = &after[escaped.len_utf8()..];
            }
            None => rest = after,
        }
    }
    text.push_str(rest);
    text.replace("{{", "{").replace("}}", "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_text_are_found_in_literals() {
        let source = literal_text("format!(\"pool {name:?} has \\\n    no \\\"free\\\" address\")");
        let parts: Vec<&str> = fixed_parts("pool <pool> has no \"free\" address").collect();
        assert_eq!(parts, ["pool ", " has no \"free\" address"]);
        assert!(parts.iter().all(|part| source.contains(part)), "{source}");
    }

    #[test]
    fn a_text_that_the_code_lost_is_reported() {
        let problems = problems(&[]);
        assert!(problems.iter().any(|problem| problem.contains("PoolExhausted")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("TryAgainLater")), "{problems:?}");
    }
}
