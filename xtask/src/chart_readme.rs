//! `cargo xtask chart-readme`: writes the README of the Helm chart, which lists each value with its default and its comment.

mod values;

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::files::{self, GenerateArgs};
use values::Entry;

/// The values of the chart. Their comments are the source of the README.
const VALUES: &str = "charts/bobbin/values.yaml";
/// The generated file.
const README: &str = "charts/bobbin/README.md";
/// The first part of the README.
const INTRO: &str = include_str!("chart_readme/intro.md");

/// Writes or checks the README of the chart under `root`.
pub fn run(root: &Path, arguments: &GenerateArgs) -> Result<ExitCode> {
    let text = std::fs::read_to_string(root.join(VALUES)).with_context(|| format!("{VALUES} can't be read"))?;
    let defaults = serde_saphyr::from_str(&text).with_context(|| format!("{VALUES} is not valid YAML"))?;
    let readme = readme(&values::entries(&text), &defaults).with_context(|| format!("{VALUES} has no README"))?;
    Ok(files::report(arguments.write_or_check(root, README, &readme, "chart-readme")?))
}

/// The text of the README.
fn readme(entries: &[Entry], defaults: &Value) -> Result<String> {
    let mut out = INTRO.to_owned();
    let mut rows = Vec::new();
    collect(entries, defaults, &[], &mut rows)?;
    for (entry, default) in rows {
        if entry.path.len() == 1 {
            let name = entry.path.concat();
            write!(out, "\n## `{name}`\n\n{}\n\n| value | default | meaning |\n|---|---|---|\n", entry.comment)?;
        } else {
            let default = default.map_or_else(String::new, |default| format!("`{}`", plain(default)));
            writeln!(out, "| `{}` | {} | {} |", entry.path.join("."), cell(&default), cell(&entry.comment))?;
        }
    }
    Ok(out)
}

/// Adds the entries below `path` to the rows, in their order. A value with commented children is a group: its row has
/// no default, and its children get rows. Any other value gets one row with the whole default.
///
/// Inside a nested group, a value needs no comment, because the comment of the group may describe the value.
fn collect<'a>(
    entries: &'a [Entry],
    defaults: &'a Value,
    path: &[String],
    rows: &mut Vec<(&'a Entry, Option<&'a Value>)>,
) -> Result<()> {
    for entry in values::children(entries, path) {
        anyhow::ensure!(
            !entry.comment.is_empty() || path.len() > 1,
            "line {}: the value {} has no comment: write a comment above it",
            entry.line,
            entry.path.join(".")
        );
        let is_group = values::children(entries, &entry.path).any(|child| !child.comment.is_empty());
        if is_group {
            rows.push((entry, None));
            collect(entries, defaults, &entry.path, rows)?;
        } else {
            let pointer = format!("/{}", entry.path.join("/"));
            rows.push((entry, defaults.pointer(&pointer)));
        }
    }
    Ok(())
}

/// A default without the quotes of JSON, as an administrator writes it in a values file.
fn plain(default: &Value) -> String {
    match default {
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
    }
}

/// The text of a table cell, with each `|` escaped, because a `|` would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# The agent.
agent:
  # `a|b`, or
  # nothing.
  mode: \"\"
  # CPU.
  resources:
    requests:
      cpu: 20m
  # All taints.
  tolerations:
    - operator: Exists
  # The account.
  account:
    enabled: true
    # Its notes.
    annotations: {}
";

    fn of(text: &str) -> Result<String> {
        readme(&values::entries(text), &serde_saphyr::from_str(text)?)
    }

    #[test]
    fn each_value_has_a_row_with_its_default_and_its_comment() {
        let readme = of(TEXT).expect("every value has a comment");
        let rows: Vec<&str> = readme.strip_prefix(INTRO).unwrap_or_default().lines().skip(1).collect();
        let expected = [
            "## `agent`",
            "",
            "The agent.",
            "",
            "| value | default | meaning |",
            "|---|---|---|",
            "| `agent.mode` | `\"\"` | `a\\|b`, or nothing. |",
            "| `agent.resources` | `{\"requests\":{\"cpu\":\"20m\"}}` | CPU. |",
            "| `agent.tolerations` | `[{\"operator\":\"Exists\"}]` | All taints. |",
            "| `agent.account` |  | The account. |",
            "| `agent.account.enabled` | `true` |  |",
            "| `agent.account.annotations` | `{}` | Its notes. |",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_value_without_a_comment_is_named_with_its_line() {
        let refused =
            of("# The agent.\nagent:\n  # The port.\n  port: 1\n  mode: run\n").expect_err("mode has no comment");
        assert_eq!(refused.to_string(), "line 5: the value agent.mode has no comment: write a comment above it");
    }
}
